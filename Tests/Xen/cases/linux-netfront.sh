# Our network back end under Linux's own front end: pings and TCP with checksums, both ways, through a TAP device that takes whole
# frames only.
. /payload/functions
. /payload/net-functions

modprobe tun
modprobe xen-netfront
dd if=/dev/urandom of=data bs=1M count=10

card 1500 --no-offloads
pings 0 1 56 999 1471 1472
tcp data
# One hop away: nobody answers a UDP packet whose checksum is wrong.
inside traceroute -n -q 3 -w 5 10.9.0.1 | tee route
[ "$(grep -c 10.9.0.1 route)" = 2 ] || fail "UDP is not answered"
unplug
agreed feature-split-event-channels on
agreed feature-sg on
filled 7000

dd if=/dev/urandom of=data bs=1M count=2
# With neither, on a device made anew.
card 1500 --no-offloads --one-event-channel --single-slots
pings 56 1472
tcp data
unplug
agreed feature-split-event-channels off
agreed feature-sg off
filled 1400

# Frames of more than a page.
card 9000 --no-offloads
pings 1472 4068 4069 8972
tcp data
unplug
agreed feature-sg on
filled 200
