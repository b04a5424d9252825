# limit: 900
# needs: iperf3
# One TCP connection between the control domain and a network apart, through Linux's own xen-netback and, in turn: Linux's own
# xen-netfront, our NetFront at a TAP device without offloads, and with them. Prints "TIMES ROUND FRONTEND MBITS DIRECTION".
. /payload/functions

rounds=5

share_more_pages
modprobe tun
modprobe xen-netback
modprobe xen-netfront
start_network
inside ip link set lo up
inside iperf3 -s > server 2>&1 &

# peer NUMBER INTERFACE   gives the interface of the frontend NUMBER to the other network
peer() {
  ip link set "$2" netns $namespace
  inside ip link set "$2" up
  inside ip addr add "10.9.$1.2/24" dev "$2"
  ping -q -c 3 -i 0.1 -W 5 "10.9.$1.2"
}

# Linux's own.
printf '%s\n' 'front mac 00:16:3e:0a:0b:02' 'front handle 2' 'back handle 2' 'back mac 00:16:3e:0a:0b:02' 'back script none' \
  'back hotplug-status connected' > keys
make_device /local/domain/0/device/vif/2 /local/domain/0/backend/vif/0/2 0 keys
wait_for "vif0.2 is there" test -e /sys/class/net/vif0.2
set_up vif0.2 10.9.2.1
wait_for "Linux's frontend has its interface" test -e /sys/bus/xen/devices/vif-2/net
peer 2 "$(ls /sys/bus/xen/devices/vif-2/net)"

# ours NUMBER OPTION...
ours() {
  number=$1 mac=00:16:3e:0a:0b:0$1
  shift
  make_vif --handle $number --mac $mac
  set_up $vif 10.9.$number.1
  xen-netfront attach $frontend --tap tap$number "$@" > log$number 2>&1 &
  wait_for "the card connects" grep -q '^connected: ' log$number || { cat log$number; fail "it does not"; }
  kick_netback
  ip link set tap$number address $mac
  peer $number tap$number
}
ours 0
ours 1 --no-offloads

# measure NUMBER NAME DIRECTION [OPTION]   from the frontend's network (tx), or to it (rx)
measure() {
  figure=$(iperf3 -c "10.9.$1.2" -t 3 -O 1 -f m ${4:-} | sed -n 's/.* \([0-9.]*\) Mbits\/sec .*receiver$/\1/p')
  echo "TIMES $round $2 ${figure:-0} $3"
}
for round in $(seq $rounds); do
  for direction in 'rx' 'tx -R'; do
    measure 2 xen-netfront $direction
    measure 1 no-offloads $direction
    measure 0 NetFront $direction
  done
done
cat log0 log1 | grep -E '^(queue|tx)' || true
