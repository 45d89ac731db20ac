"""The pytest plugin: real guests in test suites. ``pip install sevlaunch[testing]`` is all that a suite needs."""
