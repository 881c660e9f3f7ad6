"""The one way in for every file that comes from outside, and for what the command line says in YAML.

A reader (``yaml_text``, ``json_text``, ``parquet``, ``tensors``, ``csv_text``) bounds what it takes in and turns
whatever is wrong with a file into one line that says what, where and how to fix it; ``shapes`` says what the files of a
run hold. Imports no room of the harness but its errors.
"""
