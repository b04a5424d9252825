# Our block back end under Linux's own front end with a mounted file system: it stops and starts, and the guest's disk only pauses;
# unplugged and plugged in as a new device, the files are still there.
. /payload/functions

back=/local/domain/0/backend/ublk/0/51712
front=/local/domain/0/device/vbd/51712

make_disk() {
  xenstore-write $back/frontend $front $back/frontend-id 0 $back/online 1 $back/params "$PWD/disk" $back/state 1 \
    $front/backend $back $front/backend-id 0 $front/virtual-device 51712 $front/device-type disk $front/state 1
}

# start OPTION...   and waits until the disk is served, perhaps again
start() {
  start_server "$@"
  wait_for_state $front 4
  still_connected
}

# stop   and the disk stays connected
stop() {
  kill -TERM $server
  wait $server || { cat log; fail "xen-blkback ended with failure"; }
  still_connected
}
still_connected() {
  [ "$(xenstore-read $front/state) $(xenstore-read $back/state)" = "4 4" ] || fail "the keys noticed the stop"
}

modprobe xen-blkfront
modprobe ext4
truncate -s 48M disk
make_disk
: > log
start
wait_for "xvda is there" test -b /dev/xvda
mkfs.ext4 -q /dev/xvda
mkdir disk-files
mount -t ext4 /dev/xvda disk-files
dd if=/dev/urandom of=disk-files/first bs=1M count=8
sync
sha256sum disk-files/first > sums

# Idle.
stop
# What the guest asks for meanwhile waits for the next start.
{ dd if=/dev/urandom of=disk-files/second bs=1M count=8 && sync && echo written > second-is; } &
writer=$!
sleep 2
[ ! -e second-is ] || fail "somebody has flushed the disk although nobody serves it"
start
wait $writer || fail "Linux could not write to the disk that had paused"
sha256sum disk-files/second >> sums

# A start that would serve another disk does not serve at all.
stop
if xen-blkback serve $back --read-only 2> refused; then fail "a disk to write was served as a read-only one"; fi
cat refused
grep -q "stays as it is: its guest goes by info = 0 and would be served with 4" refused || fail "the reason is another one"
still_connected
truncate -s 49M larger
if xen-blkback serve $back --image larger 2> refused; then fail "a disk was served as a larger one"; fi
grep -q "goes by sectors = 98304 and would be served with 100352" refused || { cat refused; fail "the reason is another one"; }
start

# While Linux writes.
for round in 1 2 3 4 5; do
  { dd if=/dev/urandom of=disk-files/round-$round bs=64k count=64 oflag=direct && sync; } &
  writer=$!
  usleep 150000
  stop
  start
  wait $writer || fail "Linux could not write while the back end came and went"
  sha256sum disk-files/round-$round >> sums
done

# Past the page cache.
umount disk-files
e2fsck -f -n /dev/xvda || fail "the file system on the disk is not whole"
mount -t ext4 -o ro /dev/xvda disk-files
sha256sum -c sums || fail "files have changed"
umount disk-files

# Unplugged as a toolstack does it, and plugged in as a new device.
xenstore-write $back/online 0 $back/state 5
wait_for_state $front 6
wait_for_state $back 6
wait $server || { cat log; fail "xen-blkback ended with failure"; }
xenstore-rm $back
xenstore-rm $front
wait_for "xvda has gone" test ! -e /sys/block/xvda
e2fsck -f -n disk || fail "the file system in the image is not whole"
make_disk
start --close
wait_for "xvda is there" test -b /dev/xvda
mount -t ext4 -o ro /dev/xvda disk-files
sha256sum -c sums || fail "files have changed with the new device"
umount disk-files
# Told to close, and not to leave.
kill -TERM $server
wait $server || { cat log; fail "xen-blkback ended with failure"; }
wait_for_state $front 6
wait_for_state $back 6
cat log
xenstore-rm $back
xenstore-rm $front
wait_for "xvda has gone" test ! -e /sys/block/xvda
