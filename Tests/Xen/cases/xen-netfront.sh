# xen-netfront under Linux's own back end: a host that answers and pings, a TAP device, a capture; killed, its back end away. And
# net-responder.
. /payload/functions

modprobe xen-netback
modprobe tun
mac=00:16:3e:0a:0b:0c

make_card() {  # MTU
  eval "$(xen-device create vif --frontend-domain 0 --frontend-root udevice --mac $mac --mtu "$1")"
  wait_for "vif0.0 is there" test -e /sys/class/net/vif0.0
  # Nothing but what this case sends.
  echo 1 > /proc/sys/net/ipv6/conf/vif0.0/disable_ipv6
  ip link set vif0.0 mtu "$1" up
  ip addr add 10.9.0.1/24 dev vif0.0
}

# start ARGUMENT...   attaches the card, and returns when it has connected
start() {
  xen-netfront attach $frontend "${@}" > log 2>&1 &
  program=$!
  connected 'connected: '
}
connected() {  # WORDS
  wait_for "the card connects" grep -q "^$1" log || { cat log; fail "the card does not connect"; }
  # Linux now and then takes the first event of a channel and masks the others, until it is made to look.
  usleep 300000
  echo kick > /sys/kernel/debug/xen-netback/vif0.0/io_ring_q0
}
stop() {
  kill -TERM $program
  wait $program || { cat log; fail "the program ended with failure"; }
  cat log
  grep -q '^the card is closed$' log || fail "the card was not closed"
  grep -q '^tx: .* 0 errors, 0 drops; rx: .* 0 errors, 0 drops;' log || fail "frames were lost"
}
said() { wait_for "the program says \"$1\"" grep -q "$1" log || { cat log; fail "it does not"; }; }

make_card 1500

# A host: it pings, answers pings of all lengths, and sends back 10 MB.
start --address 10.9.0.2/24 --ping 10.9.0.1 --count 20 --interval 0.05 --size 1400
said '^20 packets transmitted, 20 received, 0% packet loss'
for size in 0 1 56 999 1471 1472; do all_answered 5 ping -i 0.1 -W 5 -s $size 10.9.0.2; done
grep -qi "^10.9.0.2 .* $mac " /proc/net/arp || { cat /proc/net/arp; fail "Linux knows another address than $mac"; }
udp-echo-check 10.9.0.2 10485760 1400
stop
grep -Eq '^feature-split-event-channels +yes +yes +on' log || fail "split event channels are not agreed on"
grep -q 'answered .* 30 pings and 7490 datagrams; ' log || fail "the program has answered something else"

# The same in async Swift: a loop over batches, and a handler of a SwiftNIO channel.
for shape in '' --nio; do
  net-responder $frontend --address 10.9.0.2/24 $shape > log 2>&1 &
  program=$!
  connected '10.9.0.2/24 is there'
  all_answered 20 ping -i 0.1 -W 5 -s 1472 10.9.0.2
  udp-echo-check 10.9.0.2 1048576 1400
  kill -TERM $program
  wait $program || { cat log; fail "the program ended with failure"; }
  cat log
  grep -q ' 20 pings and 749 datagrams; ' log || fail "the program has answered something else"
done

# With neither, and ending by itself.
xen-netfront attach $frontend --address 10.9.0.2/24 --one-event-channel --single-slots --ping 10.9.0.1 --count 5 \
  --interval 0.05 --once | tee log
grep -Eq '^feature-split-event-channels +no +yes +off' log || fail "split event channels are agreed on"
grep -q '^5 packets transmitted, 5 received, 0% packet loss' log

# Nobody there: failure, by the exit status.
if xen-netfront attach $frontend --address 10.9.0.2/24 --ping 10.9.0.9 --count 1 > log 2>&1; then
  fail "an absent host answers"
fi
cat log
grep -q '^Error: not every ping of 10.9.0.9 was answered$' log

# The back end's interface is down for five seconds while pings go out: all that was put is answered, and traffic resumes.
start --address 10.9.0.2/24 --ping 10.9.0.1 --count 90 --interval 0.1
said 'icmp_seq=10 '
ip link set vif0.0 down
sleep 5
if grep -q 'icmp_seq=40 ' log; then fail "the interface was not down"; fi
ip link set vif0.0 up
said 'icmp_seq=90 '
ping -q -c 5 -i 0.1 -W 5 10.9.0.2
said '^90 packets transmitted'
kill -TERM $program
wait $program || true
cat log
grep -q '^tx: .* 0 errors, 0 drops; rx: .* 0 errors, 0 drops;' log || fail "frames were never answered"

# Killed: both keys stay Connected. The next program finds that, and traffic resumes.
start --address 10.9.0.2/24
ping -q -c 3 -i 0.1 -W 5 10.9.0.2
for again in 1 2 3; do
  kill -9 $program
  wait $program || true
  [ "$(xenstore-read $frontend/state) $(xenstore-read $backend/state)" = "4 4" ] || fail "the keys noticed the kill"
  start --address 10.9.0.2/24
  ping -q -c 3 -i 0.1 -W 5 10.9.0.2
  xen-device list vif
done
stop

# A TAP device, in a network of its own: another machine's, as far as this one can see.
start --tap tap0
unshare -n sleep 100 &
other=$!
elsewhere() { nsenter -t $other -n "$@"; }
moved() { [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; }
wait_for "the other network is there" moved
[ "$(cat /sys/class/net/tap0/mtu)" = 1500 ]
ip link set tap0 address $mac
ip link set tap0 netns $other
elsewhere ip addr add 10.9.0.2/24 dev tap0
elsewhere ip link set tap0 up
all_answered 5 ping -i 0.1 -W 5 -s 1472 10.9.0.2
all_answered 5 elsewhere ping -i 0.1 -W 5 -s 1472 10.9.0.1
stop
kill $other

# A capture: there while it goes on, and it answers nothing.
start --pcap capture
if ping -q -c 2 -W 1 10.9.0.2; then fail "a capture has answered"; fi
captured() { [ "$(stat -c %s capture)" -gt 24 ]; }
wait_for "frames are captured" captured
stop
[ "$(hexdump -n 4 -e '4/1 "%02x"' capture)" = 4d3cb2a1 ] || fail "that is no capture"

# The toolstack removes the card: the program ends with success.
start --address 10.9.0.2/24
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
wait $program || { cat log; fail "the program ended with failure"; }
grep -q '^the toolstack has removed the card$' log
wait_for "vif0.0 has gone" test ! -e /sys/class/net/vif0.0

# Frames of several pages.
make_card 65517
start --address 10.9.0.2/24 --ping 10.9.0.1 --count 10 --interval 0.05 --size 65489
said '^10 packets transmitted, 10 received, 0% packet loss'
for size in 1473 4069 8972 65489; do all_answered 3 ping -i 0.1 -W 5 -s $size 10.9.0.2; done
udp-echo-check 10.9.0.2 1048576 8900
stop
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
