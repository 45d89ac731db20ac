"""Files as strangers could make them: right ones with something changed, through the commands that read them."""
