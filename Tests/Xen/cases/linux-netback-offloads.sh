# Our network front end at a TAP device, under Linux's own back end with two queues: TCP over IPv4 and IPv6 in packets of up to 64 KiB
# that nobody cuts between the two networks, with blank checksums, both ways; and without any of that.
. /payload/functions

share_more_pages
modprobe tun
load xen-netback max_queues=2
mac=00:16:3e:0a:0b:0c
make_vif --mac $mac
set_up_both $vif
start_network

# attach OPTION...   the card at a TAP device that is moved into the other network: 10.9.0.2 and fd09::2
attach() {
  xen-netfront attach $frontend --tap tap0 "$@" > log 2>&1 &
  program=$!
  wait_for "the card connects" grep -q '^connected: ' log || { cat log; fail "the card does not connect"; }
  kick_netback
  ip link set tap0 address $mac
  ip link set tap0 netns $namespace
  inside ip addr add 10.9.0.2/24 dev tap0
  inside ip link set tap0 up
  inside sh -c 'echo 0 > /proc/sys/net/ipv6/conf/tap0/accept_dad'
  inside ip addr add fd09::2/64 dev tap0
  ping -q -c 3 -i 0.1 -W 5 10.9.0.2
}
leave() {
  kill -TERM $program
  wait $program || { cat log; fail "the program ended with failure"; }
  cat log
  grep -q '^tx: .* 0 errors, 0 drops; rx: .* 0 errors, 0 drops;' log || fail "frames were lost"
}
# tcp HERE THERE FILE   from the front end's network and to it
tcp() {
  here=$1 there=$2
  receive got
  wait_for "somebody listens" listens $$
  inside nc "$here" 5000 < "$3"
  wait $receiver
  [ "$(sha256sum < "$3")" = "$(sha256sum < got)" ] || fail "what came from the front end is not what it sent"
  receive got inside
  wait_for "somebody listens" listens $namespace
  nc "$there" 5000 < "$3"
  wait $receiver
  [ "$(sha256sum < "$3")" = "$(sha256sum < got)" ] || fail "what came to the front end is not what was sent"
}
listens() { grep -q ':1388 0*:0000 0A' "/proc/$1/net/tcp" "/proc/$1/net/tcp6"; }
# numbers   packets to be cut that went to the back end, and that came from it
segmented() { sed -n 's/^tx: .*segmented \([0-9]*\) and \([0-9]*\);.*/\1 \2/p' log | tail -n 1; }

dd if=/dev/urandom of=data bs=1M count=10
dd if=data of=part bs=64K count=4
attach --queues 2
is "the front end's number of queues" "$(xenstore-read $frontend/multi-queue-num-queues)" 2
tcp 10.9.0.1 10.9.0.2 data
tcp fd09::1 fd09::2 data
for flow in 1 2 3 4 5 6; do tcp 10.9.0.1 10.9.0.2 part; done
leave
for feature in feature-gso-tcpv4 feature-gso-tcpv6 feature-ipv6-csum-offload 'ipv4 checksum offload'; do
  agreed "$feature" yes yes on
done
agreed queues 2 2 2
# 20 MiB each way: whole frames would have been 14000.
set -- $(segmented)
[ "$1" -ge 200 ] && [ "$2" -ge 200 ] || fail "$1 packets to be cut have gone to the back end, and $2 have come"
sed -n 's/^queue [0-9]*: tx: \([0-9]*\) packets.*; rx: \([0-9]*\) packets.*/\1\n\2/p' log > counts
[ "$(wc -l < counts)" -ge 4 ] || fail "there are not two queues"
while read -r number; do [ "$number" -ge 20 ] || fail "a queue has carried $number packets only"; done < counts

dd if=data of=part bs=1M count=2
attach --no-offloads
tcp 10.9.0.1 10.9.0.2 part
leave
agreed feature-gso-tcpv4 no yes off
is "the number of packets to be cut" "$(segmented)" "0 0"
kill $namespace
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
