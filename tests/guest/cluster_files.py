"""What tests/guest/cluster_room.py gives its two machines: the files of Corosync, Pacemaker and the fencing device."""

from __future__ import annotations

ADDRESSES = {"one": "10.99.0.1", "two": "10.99.0.2"}
# The power switch.
SWITCH = ("10.99.0.254", 1009)

# corosync.conf(5); two_node: each of the two may go on without the other, once it has fenced it.
COROSYNC = f"""\
totem {{
    version: 2
    cluster_name: test
    transport: knet
    token: 1000
}}
nodelist {{
    node {{
        name: one
        nodeid: 1
        ring0_addr: {ADDRESSES["one"]}
    }}
    node {{
        name: two
        nodeid: 2
        ring0_addr: {ADDRESSES["two"]}
    }}
}}
quorum {{
    provider: corosync_votequorum
    two_node: 1
}}
logging {{
    to_syslog: no
    to_stderr: yes
}}
"""

# Pacemaker's configuration. A machine that comes back leaves the guest where it is.
CIB = """\
<cib validate-with="pacemaker-3.0" admin_epoch="0" epoch="1" num_updates="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="options">
        <nvpair id="options-1" name="stonith-enabled" value="true"/>
        <nvpair id="options-2" name="stonith-action" value="off"/>
        <nvpair id="options-3" name="dc-deadtime" value="5s"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources>
      <primitive id="power" class="stonith" type="fence_room">
        <instance_attributes id="power-attributes">
          <nvpair id="power-1" name="pcmk_host_list" value="one two"/>
        </instance_attributes>
      </primitive>
      <primitive id="web" class="ocf" provider="sevlaunch" type="sevlaunch">
        <instance_attributes id="web-attributes">
          <nvpair id="web-1" name="profile" value="{folder}/web.yaml"/>
          <nvpair id="web-2" name="command" value="{folder}/sevlaunch"/>
          <nvpair id="web-3" name="shutdown_timeout" value="1"/>
        </instance_attributes>
        <meta_attributes id="web-meta">
          <nvpair id="web-meta-1" name="resource-stickiness" value="100"/>
        </meta_attributes>
        <operations>
          <op id="web-start" name="start" interval="0" timeout="120s"/>
          <op id="web-stop" name="stop" interval="0" timeout="120s"/>
          <op id="web-monitor" name="monitor" interval="5s" timeout="30s"/>
        </operations>
      </primitive>
    </resources>
    <constraints/>
  </configuration>
  <status/>
</cib>
"""

# A fencing device as Pacemaker runs it: what is to be done comes on standard input.
FENCE_AGENT = """\
#!{python} -IS
import socket, sys
METADATA = '''<?xml version="1.0"?>
<resource-agent name="fence_room" shortdesc="The switch of the room">
<longdesc>The switch of the room.</longdesc>
<parameters>
<parameter name="action" required="1"><content type="string" default="off"/></parameter>
<parameter name="port" required="0"><content type="string"/></parameter>
</parameters>
<actions>
<action name="on"/><action name="off"/><action name="monitor"/><action name="status"/><action name="metadata"/>
</actions>
</resource-agent>'''
words = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line)
action = words.get("action") or words.get("option", "metadata")
if action == "metadata":
    print(METADATA)
    sys.exit(0)
with socket.create_connection({switch}, timeout=5) as switch:
    switch.settimeout(20)
    switch.sendall(f"{{action}} {{words.get('port', 'none')}}\\n".encode())
    sys.exit(switch.recv(16) != b"done\\n")
"""

# The start of a machine: $1, the folder of the packages; $2, the room's; $3, its own; $4, its name; $5, its address.
MACHINE = """\
set -e
hostname "$4"
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 none /dev/shm
mount -t tmpfs -o mode=0755 none /run
# What is written into the system's folders is in memory, and gone when the power is.
for folder in usr etc var; do
    mkdir -p "/run/layers/$folder/upper" "/run/layers/$folder/work"
    layers="upperdir=/run/layers/$folder/upper,workdir=/run/layers/$folder/work"
    below=/$folder
    [ "$folder" != usr ] || below="/usr:$1/usr"
    mount -t overlay -o "lowerdir=$below,$layers" overlay "/$folder"
done
install -D -m 0755 "$2/agent" /usr/lib/ocf/resource.d/sevlaunch/sevlaunch
install -m 0755 "$2/fence" /usr/sbin/fence_room
install -D -m 0644 "$2/corosync.conf" /etc/corosync/corosync.conf
id hacluster > /dev/null 2>&1 || {
    echo 'haclient:x:189:' >> /etc/group
    echo 'hacluster:x:189:189::/var/lib/pacemaker:/usr/sbin/nologin' >> /etc/passwd
}
mkdir -p /var/lib/corosync /var/log/corosync /var/log/pacemaker /var/lib/pacemaker
for folder in cib pengine cores blackbox; do
    install -d -m 0750 -o hacluster -g haclient "/var/lib/pacemaker/$folder"
done
# Its configuration is on its disk.
mount --bind "$3/cib" /var/lib/pacemaker/cib
chown -R hacluster:haclient /var/lib/pacemaker /var/log/pacemaker
until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add "$5/24" dev eth0
ip link set eth0 up
corosync -f &
until corosync-cfgtool -s > /dev/null 2>&1; do sleep 0.1; done
PCMK_logfile="$3/pacemaker.log" pacemakerd &
wait
"""
