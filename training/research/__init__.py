"""Experiments that were made once, to settle a question.

They can be made again: README.md beside this file has the questions, commands
and answers.
"""
