# Our network front end under Linux's own back end asks it for frames to one group only, and for room before frames.
. /payload/functions

modprobe xen-netback
eval "$(xen-device create vif --frontend-domain 0 --frontend-root udevice --mac 00:16:3e:0a:0b:0c)"
wait_for "vif0.0 is there" test -e /sys/class/net/vif0.0
set_up vif0.0 10.9.0.1

# 01:00:5e and the low 23 bits of the address.
ip route add 224.0.0.0/4 dev vif0.0
ping -q -i 0.2 239.1.2.3 > /dev/null &
ping -q -i 0.2 239.1.2.4 > /dev/null &
net-front-features groups $frontend 10.9.0.2 10.9.0.1 01:00:5e:01:02:03 2>&1 | tee log
agreed feature-multicast-control yes yes on
killall ping

net-front-features headroom $frontend 10.9.0.2 10.9.0.1 2>&1 | tee log
agreed xdp-headroom '[0-9]+' any '[0-9]+'
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
