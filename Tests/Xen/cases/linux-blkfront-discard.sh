# Our block back end under Linux's own front end with discards: what the guest gives up, the image gives back, and nothing else.
. /payload/functions

# In KiB.
allocated() { echo $(($(stat -c %b disk) / 2)); }
discards() { [ "$(cat /sys/block/xvda/queue/discard_max_bytes)" -gt 0 ]; }

load xen-blkfront
modprobe ext4
dd if=/dev/urandom of=disk bs=1M count=48
serve_disk disk
agreed feature-discard 'not said' yes on
agreed discard-secure 'not said' no off
is "the granularity that Linux knows" "$(cat /sys/block/xvda/queue/discard_granularity)" "$(stat -c %o disk)"
discards || fail "Linux does not discard"

# 8 MiB in the middle.
cp disk original
blkdiscard -o $((16 << 20)) -l $((8 << 20)) /dev/xvda
[ "$(allocated)" -le $((40 << 10)) ] || fail "the image still takes $(allocated) KiB"
dd if=/dev/zero of=original bs=1M seek=16 count=8 conv=notrunc
same "a discard has changed something else" original disk
[ "$(sha256sum < /dev/xvda)" = "$(sha256sum < disk)" ] || fail "what Linux reads is not what the image holds"
# The image cannot make sure that nothing is left anywhere, and so does not offer it.
if blkdiscard -s -o 0 -l 4096 /dev/xvda; then fail "Linux was let discard securely"; fi

# As file systems do it.
mkfs.ext4 -q /dev/xvda
[ "$(allocated)" -le 8192 ] || fail "a new file system leaves $(allocated) KiB of the image"
mkdir files
mount -t ext4 /dev/xvda files
dd if=/dev/urandom of=files/kept bs=1M count=4
dd if=/dev/urandom of=files/removed bs=1M count=24
sha256sum files/kept > sums
sync
full=$(allocated)
rm files/removed
sync
fstrim files
[ "$(allocated)" -le $((full - (23 << 10))) ] || fail "of $full KiB there are $(allocated) after 24 MiB were removed"
umount files
e2fsck -f -n /dev/xvda || fail "the file system is not whole"
mount -t ext4 -o ro /dev/xvda files
sha256sum -c sums || fail "a file has changed"
umount files
end_disk
[ "$(done_by_server discards)" -ge 3 ] || fail "the back end says that it has discarded $(done_by_server discards) times"
is "the number of requests that failed" "$(done_by_server failed)" 0

serve_disk disk --no-discard
agreed feature-discard 'not said' no off
if discards; then fail "Linux discards on a disk that does not offer it"; fi
end_disk
