"""The guest owner's side: session, expected digest, verification, secrets, attestation reports; from files alone."""
