# Our network back end under Linux's own front end with two queues: TCP over IPv4 and IPv6 in packets of up to 64 KiB that nobody cuts
# between the two networks, with blank checksums, both ways; and none from
# the front end where the back end takes none.
. /payload/functions
. /payload/net-functions

modprobe tun
load xen-netfront max_queues=2
dd if=/dev/urandom of=data bs=1M count=10

# flows COUNT   so many connections from the front end and as many to it, one after the other
flows() {
  dd if=data of=part bs=64K count=4
  for flow in $(seq "$1"); do tcp part; done
}

card 1500 --queues 2
echo 0 > /proc/sys/net/ipv6/conf/tap0/disable_ipv6
echo 0 > /proc/sys/net/ipv6/conf/tap0/accept_dad
ip addr add fd09::1/64 dev tap0
inside sh -c "echo 0 > /proc/sys/net/ipv6/conf/$interface/accept_dad"
inside ip addr add fd09::2/64 dev "$interface"
is "the front end's number of queues" "$(xenstore-read $front/multi-queue-num-queues)" 2
pings 0 56 1472
tcp data
flows 8
tcp_between fd09::1 fd09::2 data
unplug
agreed 'tx ipv4 checksum offload' on
agreed 'ipv4 checksum offload' on
agreed 'tx feature-ipv6-csum-offload' on
agreed feature-ipv6-csum-offload on
agreed 'tx feature-gso-tcpv4' on
agreed feature-gso-tcpv4 on
agreed 'tx feature-gso-tcpv6' on
agreed feature-gso-tcpv6 on
grep -Eq '^queues +2 +2 +2( |$)' log || fail "there are not two queues"
# 20 MiB each way in packets of up to 64 KiB: whole ones would have been 14000 frames.
carried tx 200
carried rx 200
each_queue 20
none_lost

# Without.
dd if=/dev/urandom of=data bs=1M count=2
card 1500 --no-offloads
pings 56 1472
tcp data
unplug
agreed 'tx feature-gso-tcpv4' off
agreed 'tx ipv4 checksum offload' off
grep -q 'segmented 0 and ' log || fail "the front end has sent packets to be cut, although nobody takes them"
none_lost
