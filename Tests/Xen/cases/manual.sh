# The commands of docs/REAL-XEN.md as they stand there, for a PV guest with a disk and for a card in the control domain.
. /payload/functions

manual() { . "/payload/manual/$1"; }

cat > script << 'SCRIPT'
. /payload/functions
wait_for "the disk is there" test -b /dev/xvdb
dd if=/dev/xvdb of=first bs=64k
sha256sum < first
# Longer than the back end is away.
head -c 8388608 /dev/zero | tr '\0' g | dd of=/dev/xvdb bs=64k oflag=direct iflag=fullblock
echo "everything is written"
wait_for "the disk has gone" test ! -e /dev/xvdb
wait_for "the other disk is there" test -b /dev/xvdc
sha256sum < /dev/xvdc
SCRIPT

dd if=/dev/urandom of=disk.img bs=1M count=8
dd if=/dev/urandom of=other.img bs=1M count=2
was=$(sha256sum < disk.img) other=$(sha256sum < other.img)

manual modules
manual limit
start_guest guest script
manual disk-serve > log 2>&1
manual disk-create > list
wait_for_state $backend 4
console_says() { grep -q "$1" "$console"; }
wait_for "the guest has read its disk" console_says "$was"
manual disk-upgrade
gone() { ! pidof xen-blkback; }
wait_for "the back end has stopped" gone
state_is $frontend 4 || fail "the guest has noticed the stop"
manual disk-serve-again > log 2>&1
wait_for "the guest has written" console_says "everything is written"
head -c 8388608 /dev/zero | tr '\0' g > expected
same "what the guest wrote is not in the image" expected disk.img
xen-device list | tee list
grep -q '^vbd .* xvdb .* Connected (4) .* Connected (4)' list
manual disk-destroy

manual disk-one > log.one 2>&1
wait_for_state $backend 4
wait_for "the guest has read its other disk" console_says "$other"
end_guest guest
wait $! || { cat log.one; fail "xen-blkback ended with failure"; }
kill "$(pidof xen-blkback)"
cat log log.one

manual card > log.card 2>&1
wait_for "the card connects" grep -q '^connected: ' log.card
manual card-ping
manual card-destroy
wait_for "vif0.0 has gone" test ! -e /sys/class/net/vif0.0
cat log.card
# As other cases expect it.
echo 1024 > /sys/module/xen_gntalloc/parameters/limit
