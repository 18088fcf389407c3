"""Experiments that were made once, to settle a question.

They can be repeated: README.md beside this file lists the questions, commands
and answers.
"""
