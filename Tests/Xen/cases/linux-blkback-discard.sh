# Our block front end discards on a disk of Linux's own back end: the image behind it gives the room back.
. /payload/functions

modprobe loop
modprobe xen-blkback
dd if=/dev/urandom of=disk bs=1M count=12
cp disk original
make_linux_disk
blk-front $front discard 8192 8192 | tee log
agreed feature-discard yes yes on
has_let_go
dd if=/dev/zero of=original bs=1M seek=4 count=4 conv=notrunc
same "a discard has changed something else" original disk
[ "$(stat -c %b disk)" -le 16384 ] || fail "the image still takes $(stat -c %b disk) sectors"
# The twelfth field (Linux, Documentation/block/stat.rst).
is "the number of discards that Linux has done" "$(awk '{ print $12 }' /sys/block/loop0/stat)" 1
# A loop device cannot, and Linux says so.
if blk-front $front secure-discard 0 8192 > log; then fail "a disk discards securely that cannot"; fi
cat log
agreed discard-secure yes no off
remove_linux_disk

# The toolstack's word against it.
make_linux_disk
xenstore-write $back/discard-enable 0
blk-front $front read got | tee log
agreed feature-discard yes no off
has_let_go
remove_linux_disk
