# xen-device makes disks and cards that Linux's own drivers connect to at both ends, and removes them.
. /payload/functions

modprobe loop
modprobe xen-blkback
modprobe xen-blkfront
modprobe xen-netback
modprobe xen-netfront

# keys DIRECTORY   with their permissions, but for what the drivers write
keys() {
  xenstore-ls -f -p "$1" | sed "s|^$1/||; s|  *(| (|" |
    grep -E '^(backend|backend-id|virtual-device|device-type|frontend|frontend-id|online|params|type|mode|dev|physical-device|script|hotplug-status|handle|mac|mtu|removable|bootable|discard-enable) ' | sort
}

expect_keys() {  # DIRECTORY FILE
  keys "$1" > seen
  sort "$2" > expected
  diff expected seen || fail "$1 holds something else than it should"
}

# A disk: a block device under Linux's own back end.
dd if=/dev/urandom of=disk bs=1M count=8
losetup /dev/loop0 disk
eval "$(xen-device create vbd --frontend-domain 0 --image /dev/loop0)"
[ "$frontend $backend" = "/local/domain/0/device/vbd/51712 /local/domain/0/backend/vbd/0/51712" ]
wait_for_state $frontend 4
wait_for_state $backend 4
cat > front << END
backend = "$backend" (n0,r0)
backend-id = "0" (n0,r0)
virtual-device = "51712" (n0,r0)
device-type = "disk" (n0,r0)
END
expect_keys $frontend front
cat > back << END
frontend = "$frontend" (n0,r0)
frontend-id = "0" (n0,r0)
online = "1" (n0,r0)
params = "/dev/loop0" (n0,r0)
type = "phy" (n0,r0)
mode = "w" (n0,r0)
dev = "xvda" (n0,r0)
physical-device = "$(stat -c %t:%T /dev/loop0)" (n0,r0)
script = "none" (n0,r0)
hotplug-status = "connected" (n0,r0)
device-type = "disk" (n0,r0)
removable = "0" (n0,r0)
bootable = "1" (n0,r0)
discard-enable = "1" (n0,r0)
END
expect_keys $backend back
xen-device list | tee log
grep -q "^vbd  *0  *51712  *xvda  *Connected (4)  *Connected (4)  *$frontend $backend\$" log
wait_for "xvda is there" test -b /dev/xvda
[ "$(sha256sum < /dev/xvda)" = "$(sha256sum < disk)" ] || fail "what Linux reads is not what the block device holds"
dd if=/dev/urandom of=new bs=1M count=8
dd if=new of=/dev/xvda bs=1M conv=fsync
[ "$(sha256sum < disk)" = "$(sha256sum < new)" ] || fail "what Linux wrote is not what the block device holds"

# What is there is not made over.
if xen-device create vbd --frontend-domain 0 --params other > log 2>&1; then fail "a disk was made twice"; fi
grep -q "exists already: remove that device first" log
if xen-device create vbd --frontend-domain 7 --params other > log 2>&1; then fail "a disk of no domain was made"; fi
grep -q "there is no domain 7" log

xen-device destroy vbd --frontend-domain 0 | tee log
grep -q "^removed $backend, which was closed\$" log
wait_for "xvda has gone" test ! -e /dev/xvda
if xenstore-exists $frontend || xenstore-exists $backend; then fail "something is left of the disk"; fi
if xen-device destroy vbd --frontend-domain 0 > log 2>&1; then fail "a disk was removed twice"; fi
grep -q "there is no such device" log

# Read-only, by another name.
eval "$(xen-device create vbd --frontend-domain 0 --device xvdc --image /dev/loop0 --mode r)"
wait_for_state $backend 4
wait_for "xvdc is there" test -b /dev/xvdc
[ "$(blockdev --getro /dev/xvdc)" = 1 ] || fail "Linux does not know that the disk is read-only"
xen-device destroy vbd --frontend-domain 0 --device xvdc
wait_for "xvdc has gone" test ! -e /dev/xvdc
losetup -d /dev/loop0

# What a back end complains of is shown.
eval "$(xen-device create vbd --frontend-domain 0 --params nothing --physical-device ff:ff)"
complains() { xen-device list vbd | grep -q '^  the backend says: "'; }
wait_for "the back end's error is listed" complains
xen-device list vbd
xen-device destroy vbd --frontend-domain 0 --force
[ "$(xen-device list | wc -l)" = 1 ] || fail "a device is left"

# A card between Linux's two drivers.
mac=00:16:3e:01:02:03
xen-device create vif --frontend-domain 0 --mac $mac | tee log
. ./log
wait_for_state $frontend 4
wait_for_state $backend 4
cat > back << END
frontend = "$frontend" (n0,r0)
frontend-id = "0" (n0,r0)
online = "1" (n0,r0)
type = "vif" (n0,r0)
script = "none" (n0,r0)
hotplug-status = "connected" (n0,r0)
handle = "0" (n0,r0)
mac = "$mac" (n0,r0)
END
expect_keys $backend back
grep -lq $mac /sys/class/net/eth*/address || fail "Linux has no card with the address $mac"
xen-device list vif | tee log
grep -q "^vif  *0  *0  *vif0.0  *Connected (4)  *Connected (4)  *$frontend $backend\$" log
xen-device destroy vif --frontend-domain 0
wait_for "vif0.0 has gone" test ! -e /sys/class/net/vif0.0
[ "$(xen-device list | wc -l)" = 1 ] || fail "a device is left"

# One whose script is never run: its back end does not connect, and says so by waiting.
eval "$(xen-device create vif --frontend-domain 0 --handle 1 --script /nowhere --frontend-root udevice)"
wait_for_state $backend 2
[ "$(xenstore-read $backend/script)" = /nowhere ]
xen-device destroy vif --frontend-domain 0 --handle 1 --frontend-root udevice
[ "$(xen-device list | wc -l)" = 1 ] || fail "a device is left"
