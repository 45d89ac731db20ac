"""What a command and an embedder both do: plan, bring up and verify, stay and relaunch, take down. Nothing prints."""
