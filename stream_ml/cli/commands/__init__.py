"""The commands of `stream-ml`: one command, one small file. They parse, call and print."""
