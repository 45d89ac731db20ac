"""Keys that a profile does not have, or not in this place, and what there is instead."""

from __future__ import annotations

# Keys that people bring from elsewhere, and what there is instead.
NOT_HERE = {
    **dict.fromkeys(("hostdev", "hostdevs", "vfio"), "host devices can not be assigned yet"),
    "incoming": "an encrypted guest can't be restored or migrated; it can only be started afresh",
    "loadvm": "an encrypted guest can't be restored or migrated; it can only be started afresh",
    "snapshot": "an encrypted guest can't be restored or migrated; it can only be started afresh",
    "<<": "YAML merge keys are not supported; use extends",
}
_SNP_SESSION = (
    "the owner of an SNP guest gives no session; host_data or id_block bind the launch to them, and the guest's own "
    "report shows it"
)
_BEFORE_SNP = "the launch session (dh_cert, session) is what binds such a launch to its owner"
# What there is instead of a key that belongs to another type of the same mapping: the type that was chosen, the key.
INSTEAD = {
    ("sev-snp", "dh_cert"): _SNP_SESSION,
    ("sev-snp", "session"): _SNP_SESSION,
    ("sev-snp", "handle"): "SNP guests can't share a key",
    ("sev-snp", "legacy_vm_type"): "KVM_SEV_INIT2 starts every SNP guest",
    **{(kind, key): _BEFORE_SNP for kind in ("sev", "sev-es") for key in ("host_data", "id_block", "id_auth")},
    ("tap", "forward"): "the network behind the interface decides who reaches the guest",
    ("bridge", "forward"): "the network behind the bridge decides who reaches the guest",
    ("macvtap", "forward"): "the network of its interface decides who reaches the guest",
    **{
        (kind, "ssh"): "sevlaunch ssh goes through a port that is forwarded (type: user or passt), or through vsock"
        for kind in ("tap", "bridge", "macvtap")
    },
    ("bridge", "queues"): "qemu-bridge-helper makes an interface of one queue; put a tap interface that was made with "
    "multi_queue on the bridge, and name it with type: tap",
}
