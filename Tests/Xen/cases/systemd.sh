# needs: systemd
# limit: 1800
# Our block back end under systemd, from the unit file as it goes to a machine, with Linux's own front end: it serves the disk in
# the sandbox that the file asks for, and is reloaded, stopped, started and killed while the disk stays connected.
. /payload/functions

images=/var/lib/xen/images units=/etc/systemd/system
image=$images/disk.img
back=/local/domain/0/backend/ublk/0/51712
front=/local/domain/0/device/vbd/51712

# boot   systemd as the first process of a PID namespace; $systemd is its number outside. It has our unit and the targets that each
# service needs; xenstored is not its own, as in Debian.
boot() {
  mkdir -p $units/xen-blkback.service.d /usr/local/sbin /var/tmp
  cp /payload/bin/xen-blkback /usr/local/sbin/
  cp /payload/xen-blkback.service $units/
  for target in sysinit basic shutdown multi-user; do
    printf '[Unit]\nDefaultDependencies=no\n' > $units/$target.target
  done
  # There is no journal.
  printf '[Service]\nStandardError=append:%s\n' "$PWD/log" > $units/xen-blkback.service.d/log.conf
  SYSTEMD_OFFLINE=1 systemctl enable xen-blkback
  : > log
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  trap 'kill -9 $(pidof systemd)' EXIT
  # Not with our console, whose terminal it would take.
  unshare -m -u -i -p -f sh -c 'mount -t proc proc /proc && mount --bind /dev/null /dev/console &&
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=rig systemd --system --unit=multi-user.target --log-target=kmsg' &
  wait_for "systemd runs" is_running
  wait_for "systemd answers" control -q is-active multi-user.target 2> /dev/null
}
is_running() { systemd=$(pidof systemd); }
control() { nsenter -m -p -t $systemd systemctl --no-pager "$@"; }
is_served() { [ "$(control is-active xen-blkback)" = active ] && has_connected; }
has_size() { [ "$(cat /sys/block/xvda/size)" = "$1" ]; }
still_connected() { is "the states" "$(xenstore-read $front/state) $(xenstore-read $back/state)" '4 4'; }

# status KEY VALUE   in what the kernel says of the daemon
status() { is "the daemon's $1" "$(sed -n "s/^$1:[[:space:]]*//p" /proc/$daemon/status)" "$2"; }

# within COMMAND...   with the daemon's mounts, network and devices, but with all of root's capabilities
within() {
  sh -c 'echo $$ > /sys/fs/cgroup/system.slice/xen-blkback.service/cgroup.procs && exec nsenter -m -n -t "$@"' \
    within $daemon "$@" 2>&1
}

# refuses REASON COMMAND...   within
refuses() {
  reason=$1
  shift
  if within "$@" > refusal; then fail "the sandbox lets $*"; fi
  grep -q "$reason" refusal || { cat refusal; fail "$* fails for another reason than $reason"; }
}

modprobe -a loop ext4
truncate -s 64M file-system
losetup /dev/loop0 file-system
mkfs.ext4 -q /dev/loop0
mkdir -p $images
mount -t ext4 /dev/loop0 $images
modprobe xen-blkfront
boot
truncate -s 16M $image
printf '%s\n' 'front virtual-device 51712' 'front device-type disk' "back params $image" > keys
make_device $front $back 0 keys
wait_for_state $front 4 || { cat log; control status xen-blkback; exit 1; }
wait_for "xvda is there" test -b /dev/xvda
grep -q 'with io_uring, past the page cache' log || { cat log; fail "the image is read and written another way"; }
read_and_write

# The sandbox.
daemon=$(pidof xen-blkback)
status CapEff 0000000000000000
status CapPrm 0000000000000000
status CapBnd 0000000000000000
status NoNewPrivs 1
status Seccomp 2
for namespace in mnt net; do
  [ "$(readlink /proc/$daemon/ns/$namespace)" != "$(readlink /proc/$systemd/ns/$namespace)" ] ||
    fail "the daemon has systemd's namespace $namespace"
done
refuses 'Read-only file system' touch /etc/file
refuses 'Read-only file system' touch /run/file
within touch $images/file /run/xen-blkback/file
rm $images/file /run/xen-blkback/file
# Whoever reaches these as root is asked for nothing else, and root again.
refuses 'No such file' ls /run/systemd/private
refuses 'No such file' ls "$PWD"
refuses 'Operation not permitted' dd if=/dev/xen/privcmd of=/dev/null count=0
within dd if=/dev/xen/gntdev of=/dev/null count=0
is "the network" "$(within ip -o link | cut -d: -f2)" ' lo'

# A reload.
truncate -s 32M $image
control reload xen-blkback
wait_for "Linux's disk has the image's size" has_size 65536

# A stop, a start, and ends that systemd sees as failures, while Linux writes.
{
  until [ -e enough ]; do
    dd if=/dev/urandom of=new bs=1M count=32
    dd if=new of=/dev/xvda bs=64k oflag=direct
    cmp new $image
    echo pass >> passes
  done
} 2> noise.log &
writer=$!
sleep 2
control stop xen-blkback
is "the service" "$(control is-active xen-blkback)" inactive
is "its result" "$(control show -P Result xen-blkback)" success
still_connected
before=$(connections)
control start xen-blkback
wait_for "the disk is served" is_served
for kill in 1 2 3; do
  usleep 500000
  before=$(connections)
  kill -9 "$(pidof xen-blkback)"
  wait_for "systemd has the disk served again" is_served
  still_connected
  is "the restarts" "$(control show -P NRestarts xen-blkback)" $kill
done
# A reload that comes before the daemon listens to its signal ends it.
program=$(sed -n 's/^ExecStart=//p' $units/xen-blkback.service)
printf '[Service]\nExecStart=\nExecStart=/bin/sh -c "if mkdir /run/xen-blkback/early; then kill -HUP $$$$; fi; exec %s"\n' "$program" \
  > $units/xen-blkback.service.d/early.conf
control daemon-reload
# What was started so often is not held against it.
control reset-failed xen-blkback
control stop xen-blkback
before=$(connections)
control start xen-blkback
wait_for "systemd has the disk served after a reload that was too early" is_served
is "the restarts" "$(control show -P NRestarts xen-blkback)" 1
still_connected
touch enough
wait $writer || { cat noise.log; fail "Linux could not write, or the image does not hold what it wrote"; }
cat passes
dd if=/dev/xvda of=again bs=1M iflag=direct
same "what Linux reads is not what it wrote" new again

xenstore-write $back/online 0 $back/state 5
wait_for_state $front 6
wait_for_state $back 6
control stop xen-blkback
is "the daemon's result" "$(control show -P Result xen-blkback)" success
cat log
xenstore-rm $back
xenstore-rm $front
wait_for "xvda has gone" test ! -e /sys/block/xvda
kill -9 $systemd
trap - EXIT
umount $images
losetup -d /dev/loop0
