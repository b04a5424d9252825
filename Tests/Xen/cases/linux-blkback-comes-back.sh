# Our block front end under load while Linux's own back end is taken from its disk and given back, five times. Linux's then takes
# up the rings that it finds, whether or not we have begun to close: what was in flight is asked again, and nobody notices but by
# the clock.
. /payload/functions

driver=/sys/bus/xen-backend/drivers/vbd
rounds() { grep -c '^round ' log || true; }
goes_on() { [ "$(rounds)" -gt "$before" ]; }

modprobe loop
modprobe xen-blkback
truncate -s 12M disk
dd if=/dev/urandom of=new bs=1M count=12
make_linux_disk
blk-front --queues 2 $front rewrite new > log &
program=$!
wait_for "the first round is written" grep -q '^round 1 is' log
for time in 1 2 3 4 5; do
  # Not at the same moment of a round.
  usleep $((100000 + time * 130000))
  echo vbd-0-51712 > $driver/unbind
  sleep 1
  before=$(rounds)
  echo vbd-0-51712 > $driver/bind
  wait_for "rounds go on after time $time" goes_on || { cat log; xenstore-ls -f | grep 51712; exit 1; }
  wait_for_state $front 4
  wait_for_state $back 4
done
kill -TERM $program
wait $program || { cat log; fail "blk-front ended with failure"; }
tail -n 3 log
same "what was written is not what the disk holds" new disk
has_let_go
rm -f got
blk-front $front read got
same "what was read is not what the disk holds" disk got
has_let_go
remove_linux_disk
