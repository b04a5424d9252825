# Our network front end under Linux's own back end: connected, pinged both ways, left, and connected again.
. /payload/functions

# Linux's own front end claims what lies below device/.
front=/local/domain/0/udevice/vif/0
back=/local/domain/0/backend/vif/0/0
mac=00:16:3e:0a:0b:0c
counters=/sys/class/net/vif0.0/statistics

make_card() {  # MTU
  # One call is one transaction: Linux looks at a new device once, and both halves must be there.
  xenstore-write $back/frontend $front $back/frontend-id 0 $back/online 1 $back/handle 0 $back/mac $mac \
    $back/script none $back/hotplug-status connected $back/state 1 \
    $front/backend $back $front/backend-id 0 $front/handle 0 $front/mac $mac $front/mtu "$1" $front/state 1
  wait_for "vif0.0 is there" test -e /sys/class/net/vif0.0
  # Nothing but what this case sends.
  echo 1 > /proc/sys/net/ipv6/conf/vif0.0/disable_ipv6
  ip link set vif0.0 mtu "$1" up
  ip addr add 10.9.0.1/24 dev vif0.0
}

remove_card() {
  xenstore-rm $back
  xenstore-rm $front
  wait_for "vif0.0 has gone" test ! -e /sys/class/net/vif0.0
}

# The back end lets go of a front end that has left, and waits for another.
has_let_go() {
  case $(xenstore-read $back/state) in 2 | 6) ;; *) fail "the back end stays in state $(xenstore-read $back/state)" ;; esac
}

icmp_counter() {  # NAME
  awk -v name="$1" '/^Icmp:/ { if (!place) { for (place = 1; $place != name; place++); } else print $place }' /proc/net/snmp
}

modprobe xen-netback

# agreed LOG FEATURE on|off   what the two ends made of it
agreed() { grep -Eq "^$2 +(yes|no) +(yes|no) +$3( |$)" "$1" || { cat "$1"; fail "$2 is not $3"; }; }

make_card 1500
wrong=$(icmp_counter InCsumErrors) replies=$(icmp_counter InEchoReps)
net-front-ping $front 10.9.0.2 10.9.0.1 200 $counters > log &
program=$!
wait_for "the program answers pings" grep -q '^answering' log || { cat log; fail "the first card failed"; }
for size in 0 1 56 999 1471 1472; do
  all_answered 5 ping -i 0.1 -W 5 -s $size 10.9.0.2
done
grep -qi "^10.9.0.2 .* $mac " /proc/net/arp || { cat /proc/net/arp; fail "Linux knows another address than $mac"; }
kill $program
wait $program || { cat log; fail "the first card failed"; }
cat log
agreed log feature-split-event-channels on
agreed log feature-sg on
grep -q "^answered 30$" log || fail "the program has not answered 30 pings"
grep -q "is at $(cat /sys/class/net/vif0.0/address)$" log || fail "the program knows another address of vif0.0"
# A reply's checksum holds only if the payload came back as Linux sent it.
[ $(($(icmp_counter InEchoReps) - replies)) = 30 ] || fail "Linux has received $(icmp_counter InEchoReps) replies"
[ "$(icmp_counter InCsumErrors)" = "$wrong" ] || fail "Linux has found wrong checksums"
has_let_go

# With neither, on the same device.
net-front-ping --one-event-channel --single-slots $front 10.9.0.2 10.9.0.1 60 | tee log
agreed log feature-split-event-channels off
agreed log feature-sg off
has_let_go

# Another process takes the same device up again.
for again in 1 2 3; do
  net-front-ping $front 10.9.0.2 10.9.0.1 12
  has_let_go
done
remove_card

# The toolstack makes the device anew.
for again in 1 2 3 4 5 6; do
  make_card $((1500 - 100 * again))
  net-front-ping $front 10.9.0.2 10.9.0.1 12 | tee log
  grep -q "^card $mac with MTU $((1500 - 100 * again));" log || fail "the card has another address or MTU"
  has_let_go
  remove_card
done

# Frames of more than a page, both ways: each ping is compared whole.
for mtu in 9000 65517; do
  make_card $mtu
  wrong=$(icmp_counter InCsumErrors) replies=$(icmp_counter InEchoReps)
  net-front-ping $front 10.9.0.2 10.9.0.1 60 $counters > log &
  program=$!
  wait_for "the program answers long pings" grep -q '^answering' log || { cat log; fail "the card with MTU $mtu failed"; }
  for size in 1472 1473 4000 4068 4069 $((mtu - 28)); do
    # 65507 bytes are the most that one ping has.
    all_answered 3 ping -i 0.1 -W 5 -s $((size < 65507 ? size : 65507)) 10.9.0.2
  done
  kill $program
  wait $program || { cat log; fail "the card with MTU $mtu failed"; }
  cat log
  agreed log feature-sg on
  grep -q "^card $mac with MTU $mtu;" log || fail "the card has another address or MTU"
  grep -q "^answered 18$" log || fail "the program has not answered 18 pings"
  [ $(($(icmp_counter InEchoReps) - replies)) = 18 ] || fail "Linux has received $(icmp_counter InEchoReps) replies"
  [ "$(icmp_counter InCsumErrors)" = "$wrong" ] || fail "Linux has found wrong checksums"
  has_let_go
  # Without several slots the same card goes down to 1500, and so does Linux's end.
  net-front-ping --single-slots $front 10.9.0.2 10.9.0.1 24 | tee log
  agreed log feature-split-event-channels on
  agreed log feature-sg off
  grep -q "^card $mac with MTU 1500;" log || fail "the card has another MTU without scatter-gather"
  has_let_go
  remove_card
done
