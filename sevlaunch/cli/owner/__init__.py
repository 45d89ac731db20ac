"""The guest owner's commands: ``sevlaunch owner ...``. One module for each."""
