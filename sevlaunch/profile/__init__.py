"""YAML -> Profile: the model, the loader with source positions, guest policies and the rules."""
