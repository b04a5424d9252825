# Our network back end under Linux's own front end: pings and TCP with checksums, both ways, through a TAP device.
. /payload/functions

# Linux's own back end claims what lies below backend/vif.
front=/local/domain/0/device/vif/0
back=/local/domain/0/backend/unet/0/0
mac=00:16:3e:0a:0b:0c

counter() {  # FILE KIND NAME   of /proc/net/snmp
  awk -v kind="$2:" -v name="$3" '
    $1 == kind { if (!place) { for (place = 1; $place != name; place++); } else print $place }' "$1"
}
inside() { nsenter -n -t $namespace "$@"; }

# card MTU OPTION...   a card with its back end, which is given the options: 10.9.0.1 at the TAP device, 10.9.0.2 at the
# front end's interface in a network of its own
card() {
  mtu=$1
  shift
  net-back "$@" $back tap0 > log 2>&1 &
  server=$!
  set_up tap0 10.9.0.1 "$mtu"
  printf '%s\n' "front mac $mac" 'front handle 0' 'back handle 0' "back mac $mac" > keys
  make_device $front $back 0 keys
  wait_for "the front end has its interface" test -e /sys/bus/xen/devices/vif-0/net
  interface=$(ls /sys/bus/xen/devices/vif-0/net)
  unshare -n sleep 1000 &
  namespace=$!
  wait_for "the network is apart" apart
  ip link set "$interface" netns $namespace
  inside ip link set "$interface" mtu "$mtu" up
  inside ip addr add 10.9.0.2/24 dev "$interface"
  wait_for_state $front 4
  wait_for_state $back 4
}
apart() { [ "$(readlink /proc/$namespace/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }

# pings SIZE...   both ways; Linux drops a reply that is not what it sent
pings() {
  for size; do
    ping -q -c 3 -i 0.1 -W 5 -s "$size" 10.9.0.2
    inside ping -q -c 3 -i 0.1 -W 5 -s "$size" 10.9.0.1
  done
}

# tcp FILE   through the card, from the front end and to it
tcp() {
  receive got
  wait_for "somebody listens" listens $$
  inside nc 10.9.0.1 5000 < "$1"
  wait $receiver
  [ "$(sha256sum < "$1")" = "$(sha256sum < got)" ] || fail "what came from the front end is not what it sent"
  receive got inside
  wait_for "somebody listens" listens $namespace
  nc 10.9.0.2 5000 < "$1"
  wait $receiver
  [ "$(sha256sum < "$1")" = "$(sha256sum < got)" ] || fail "what came to the front end is not what was sent"
}
# 5000 is 1388 in hexadecimal, and 0A is the state of a socket that listens.
listens() { grep -q ':1388 0*:0000 0A' "/proc/$1/net/tcp" "/proc/$1/net/tcp6"; }

# unplug   as a toolstack does it, and what Linux says of the checksums it has seen
unplug() {
  for file in /proc/net/snmp /proc/$namespace/net/snmp; do
    for kind in Icmp Tcp Udp; do
      [ "$(counter $file $kind InCsumErrors)" = 0 ] || fail "$file: Linux has found wrong $kind checksums"
    done
  done
  xenstore-write $back/online 0 $back/state 5
  wait_for_state $front 6
  wait_for_state $back 6
  wait $server || { cat log; fail "the back end ended with failure"; }
  cat log
  kill $namespace
  wait $namespace || true
  xenstore-rm $back
  xenstore-rm $front
  wait_for "the front end's interface has gone" test ! -e /sys/bus/xen/devices/vif-0
}

# agreed FEATURE on|off   what the two ends made of it
agreed() { grep -Eq "^$1 +(yes|no) +(yes|no) +$2( |$)" log || fail "$1 is not $2"; }
# Linux's front end leaves the checksums of TCP over IPv4 to its back end.
filled() {
  number=$(sed -n 's/.*tx_checksums_filled \([0-9]*\);.*/\1/p' log | tail -n 1)
  [ "$number" -ge "$1" ] || fail "the back end has filled in $number checksums, and at least $1 were blank"
  grep -q 'tx: .* 0 errors, 0 drops; rx: .* 0 errors, 0 drops;' log || fail "frames were lost"
  grep -q 'the interface did not take 0 frames' log || fail "the TAP device dropped frames"
}

modprobe tun
modprobe xen-netfront
dd if=/dev/urandom of=data bs=1M count=10

card 1500
pings 0 1 56 999 1471 1472
tcp data
# One hop away: nobody answers a UDP packet whose checksum is wrong.
inside traceroute -n -q 3 -w 5 10.9.0.1 | tee route
[ "$(grep -c 10.9.0.1 route)" = 2 ] || fail "UDP is not answered"
unplug
agreed feature-split-event-channels on
agreed feature-sg on
filled 7000

dd if=/dev/urandom of=data bs=1M count=2
# With neither, on a device made anew.
card 1500 --one-event-channel --single-slots
pings 56 1472
tcp data
unplug
agreed feature-split-event-channels off
agreed feature-sg off
filled 1400

# Frames of more than a page.
card 9000
pings 1472 4068 4069 8972
tcp data
unplug
agreed feature-sg on
filled 200
