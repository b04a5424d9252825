# Our block back end under Linux's own front end while the image is made larger: so is the disk that is mounted, and the file
# system on it.
. /payload/functions

# resize SIZE   of the image, and tells the program to look at it
resize() {
  truncate -s "$1" disk
  kill -HUP $server
  wait_for "Linux's disk has the image's size" has_size_of_image
  is "the states" "$(xenstore-read $front/state) $(xenstore-read $back/state)" '4 4'
}
has_size_of_image() { [ "$(cat /sys/block/xvda/size)" = $(($(stat -c %s disk) / 512)) ]; }
files_size() { df -m files | awk '/xvda/ { print $2 }'; }

load xen-blkfront
modprobe ext4
truncate -s 32M disk
serve_disk disk
mkfs.ext4 -q /dev/xvda
mkdir files
mount -t ext4 /dev/xvda files
dd if=/dev/urandom of=files/before bs=1M count=8
sha256sum files/before > sums
# Somebody writes all the time.
{ until [ -e enough ]; do dd if=/dev/zero of=files/noise bs=64k count=16 oflag=direct || exit 1; done; } 2> noise.log &
writer=$!

resize 96M
is "the backend's sectors" "$(xenstore-read $back/sectors)" 196608
resize2fs /dev/xvda
[ "$(files_size)" -gt 64 ] || fail "the file system has $(files_size) MiB"
touch enough
wait $writer || { cat noise.log; fail "Linux could not write while the disk grew"; }
dd if=/dev/urandom of=files/after bs=1M count=48
sha256sum files/after >> sums

# Another process finds the new size agreed on.
kill -9 $server
wait $server || true
start_server
umount files
e2fsck -f -n /dev/xvda || fail "the file system is not whole"
mount -t ext4 -o ro /dev/xvda files
sha256sum -c sums || fail "files have changed"
umount files

# Smaller: what lies behind the new end is there no more.
dd if=/dev/xvda of=/dev/null bs=4k skip=20000 count=1 iflag=direct
resize 64M
if dd if=/dev/xvda of=got bs=4k skip=20000 count=1 iflag=direct && [ -s got ]; then fail "Linux reads what the image has lost"; fi
[ "$(sha256sum < /dev/xvda)" = "$(sha256sum < disk)" ] || fail "what Linux reads is not what the image holds"
end_disk
