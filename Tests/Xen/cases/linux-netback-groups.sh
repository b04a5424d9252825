# Our network front end asks Linux's own back end for frames to one group only, and for room before frames.
. /payload/functions

modprobe xen-netback
modprobe veth
modprobe bridge
make_vif --mac 00:16:3e:0a:0b:0c
set_up $vif 10.9.0.1
# A back end of Linux's takes one new value a connection: it stays Reconfigured.
for sizes in "0 256" "192 0" "2048 64"; do
  net-front-features headroom $frontend 10.9.0.2 10.9.0.1 $sizes 2>&1 | tee log
  agreed xdp-headroom "${sizes% *}" any "${sizes% *}"
done

# Linux filters what it forwards, and not what it sends itself: the pings come from a network apart, through a bridge.
ip link add br0 type bridge
ip link set $vif master br0 up
ip addr del 10.9.0.1/24 dev $vif
set_up br0 10.9.0.1
# Its peer is called veth0.
ip link add outer type veth
ip link set outer master br0 up
start_network
ip link set veth0 netns $namespace
inside ip link set veth0 up
inside ip addr add 10.9.0.3/24 dev veth0

# To 01:00:5e and the low 23 bits of the address.
inside ip route add 224.0.0.0/4 dev veth0
inside ping -q -i 0.2 239.1.2.3 > /dev/null &
inside ping -q -i 0.2 239.1.2.4 > /dev/null &
net-front-features groups $frontend 10.9.0.2 10.9.0.1 01:00:5e:01:02:03 01:00:5e:01:02:04 2>&1 | tee log
agreed feature-multicast-control yes yes on
killall ping
kill $namespace
ip link set br0 down
ip link del br0
xen-device destroy vif --frontend-domain 0 --frontend-root udevice
