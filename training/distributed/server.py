"""A process that is a worker or a parameter server."""

import contextlib
import json
import socket

import tensorflow as tf
from absl import logging

from training.common import files
from training.distributed.cluster import (
    ClusterError,
    card_path,
    inter_op_threads,
    versions,
)


def check_free(address: str):
    """Checks that the port is free.

    gRPC shares a port with any process that allows it: two servers on one port
    would each get a part of the calls.

    Raises:
        ClusterError: it is not.
    """
    port = int(address.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        with contextlib.closing(socket.create_server(
            ("", port), family=family,
            dualstack_ipv6=family == socket.AF_INET6, reuse_port=False,
        )):  # fmt: skip
            pass
    except OSError as error:
        raise ClusterError(
            f"The port of {address} must be free ({error})."
        ) from error


def start(found, cores: int) -> tf.distribute.Server:
    """Starts the server of this process.

    Args:
        found: a cluster resolver.
        cores: number of cores to use; 0 for all.

    Raises:
        ClusterError: its port is taken, or cannot be bound.
    """
    job, index = found.task_type, found.task_id
    address = found.cluster_spec().task_address(job, index)
    check_free(address)
    card = card_path(job, index, address)
    files.write(card, json.dumps(versions()))
    options = tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=inter_op_threads(found),
        intra_op_parallelism_threads=cores,
        # Other programs may need the GPU's memory, too.
        gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
    )
    try:
        server = tf.distribute.Server(
            found.cluster_spec(), job_name=job, task_index=index,
            protocol="grpc", config=options,
        )  # fmt: skip
    except tf.errors.OpError as error:
        raise ClusterError(
            f"{job} {index} must be able to serve at {address} "
            f"({error.message})."
        ) from error
    logging.info("%s %d serves at %s.", job, index, address)
    return server
