"""Asynchronous meta-training over many machines (section 4.5).

A chief hands meta-iterations to workers, which read the meta-parameters from a
parameter server, unroll, and write updates there, each at its own pace. It is
built on `tf.distribute`'s `ParameterServerStrategy` and `ClusterCoordinator`.
"""
