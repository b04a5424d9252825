# Linux's own back end is removed under traffic of our network front end, and loaded again: the front end sees it wait, closes, begins anew, and
# traffic resumes on the same card.
. /payload/functions

modprobe xen-netback
make_vif --mac 00:16:3e:0a:0b:0c
set_up $vif 10.9.0.1
xen-netfront attach $frontend --address 10.9.0.2/24 --ping 10.9.0.1 --count 600 --interval 0.1 > log 2>&1 &
program=$!
said() { wait_for "the program says \"$1\"" grep -q "$1" log || { cat log; fail "it does not"; }; }
said '^connected: '
kick_netback
said 'icmp_seq=10 '
for again in 1 2 3 4 5; do
  answered=$(grep -c 'icmp_seq=' log)
  # A module with a device of its own cannot be removed.
  echo vif-0-0 > /sys/bus/xen-backend/drivers/vif/unbind
  modprobe -r xen-netback
  wait_for "the interface has gone" test ! -e /sys/class/net/$vif
  modprobe xen-netback
  wait_for "$vif is there again" test -e /sys/class/net/$vif
  # It says InitWait, at which the front end closes. Before it sees that it may have taken the old rings, which are still there; then it
  # says nothing more until the interface is set up.
  usleep $((again * 100000))
  # Its removal has taken the key away by which the hotplug script says so.
  xenstore-write $backend/hotplug-status connected
  set_up $vif 10.9.0.1
  wait_for_state $backend 4
  wait_for_state $frontend 4
  kick_netback
  goes_on() { [ "$(grep -c 'icmp_seq=' log)" -ge $((answered + 10)) ]; }
  wait_for "pings are answered again" goes_on || { cat log; fail "they are not"; }
  ping -q -c 5 -i 0.1 -W 5 10.9.0.2
done
kill -TERM $program
wait $program || true
cat log
is "how often the card has connected again" "$(grep -c '^connected again: ' log)" 5
grep -q '^tx: .* 0 errors, [0-9]* drops; rx: .* 0 errors, 0 drops;' log || fail "frames came wrong"
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
