"""(Profile, Host) -> Plan -> argv and Needs, as pure functions; one module a part."""
