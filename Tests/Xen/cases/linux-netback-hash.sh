# Our network front end has Linux's own back end hash and spread frames over four queues, by the control ring: every frame has the
# hash that our Toeplitz computes of it, and as many come on each queue as it predicts.
. /payload/functions

share_more_pages
load xen-netback max_queues=4
make_vif --mac 00:16:3e:0a:0b:0c
set_up_both $vif

# flows SEED MAPPING-COUNT   flows of each kind; nobody takes the connections
flows() {
  net-front-features hash $frontend 10.9.0.2 10.9.0.1 "$@" > log 2>&1 &
  program=$!
  wait_for "the back end hashes" grep -q '^hashing by ' log || { cat log; fail "it does not"; }
  kick_netback
  ping -q -c 3 -i 0.2 -W 5 10.9.0.2
  for port in $(seq 2000 2023); do
    nc -w 2 10.9.0.2 "$port" < /dev/null > /dev/null 2>&1 &
    nc -w 2 fd09::2 "$port" < /dev/null > /dev/null 2>&1 &
  done
  # Other addresses of the same network, without ports: the host answers for one of them only, in IPv4.
  for number in $(seq 2 25); do
    ping -q -c 1 -W 2 "fd09::$number" > /dev/null 2>&1 &
    sender=$!
  done
  wait $sender || true
  sleep 4
  kill $program
  wait $program || { cat log; fail "the flows are not where they were predicted"; }
  cat log
  agreed feature-ctrl-ring yes yes on
  for kind in ipv4 ipv4TCP ipv6 ipv6TCP; do
    number=$(sed -n "s/^hashed $kind: //p" log)
    [ "${number:-0}" -ge 3 ] || fail "${number:-no} frames have a hash of the kind $kind"
  done
}
flows 1 128
flows 2 5
# Without a mapping the hash divided by the number of queues says which.
flows 3 0
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
