# A PV guest whose disk another PV guest serves, as docs/REAL-XEN.md says. The driver domain has no rights but its own.
. /payload/functions

cat > driver-script << 'SCRIPT'
mkdir /images
truncate -s 8M /images/disk.img
. /payload/manual/driver-serve
echo "serving"
# Relative to this domain's home. When the guest has gone, so have the keys of its disk, which nobody but us removes; the
# directory above them is the toolstack's.
has_disk() { xenstore-ls backend/vbd 2> /dev/null | grep -q 51712; }
until has_disk; do usleep 300000; done
while has_disk; do usleep 300000; done
echo "the image holds $(sha256sum < /images/disk.img)"
SCRIPT
cat > guest-script << 'SCRIPT'
. /payload/functions
wait_for "the disk is there" test -b /dev/xvda
head -c 8388608 /dev/zero | tr '\0' g | dd of=/dev/xvda bs=64k iflag=fullblock conv=fsync
echo "everything is written"
# As when it crashes: nobody closes anything.
usleep 2000000
SCRIPT

# The guest's programs and their libraries are the control domain's; all libraries together are more than it has memory for.
loader=/lib64/ld-linux-x86-64.so.2
libraries=$(for program in xen-blkback xenstore-ls; do $loader --list "$(command -v $program)"; done \
  | grep -o ' /[^ ]*' | sort -u)
# Most are names of others.
files=$(for file in $loader $libraries; do readlink -f "$file"; done)
guest_megabytes=448
start_guest driver driver-script /payload/bin/xen-blkback /payload/manual/driver-serve $loader $libraries $files
driver=$domain driver_console=$console
console_says() { grep -q "$1" "$driver_console"; }
wait_for "the driver domain serves" console_says "serving"
guest_megabytes=192
start_guest guest guest-script
. /payload/manual/driver-create
back=/local/domain/$driver/backend/vbd/$domain/51712
wait_for_state $back 4
xen-device list
written() { grep -q "everything is written" "$console"; }
wait_for "the guest has written" written
xl destroy guest
head -c 8388608 /dev/zero | tr '\0' g > expected
sum=$(sha256sum < expected)
wait_for "the driver domain has let go of the disk" console_says "the image holds $sum"
if xenstore-exists $back; then fail "keys of the disk are left"; fi
end_guest driver
