import BlkBack
import BlkFront
import Logging
import NetBack
import NetFront
import XenBus
import XenLoopback

/// One of our drivers, and another end that is nothing but keys with any values, in any order, on a whole store.
func fuzzStoreKeys(_ input: inout FuzzInput) {
  do { try fuzzKeys(&input) } catch { fatalError("the rig: \(error)") }
}

private func fuzzKeys(_ input: inout FuzzInput) throws {
  let loopback = Loopback()
  let (control, guest, driverDomain) = (loopback.addDomain(), loopback.addDomain(), loopback.addDomain())
  let toolstack = try Toolstack(on: control)
  let first = input.next(UInt8.self)
  let (kind, beginsSound) = (first % 4, first >= 128)
  let device =
    kind < 2
    ? try toolstack.addVbd(to: guest.domain, servedBy: driverDomain.domain, params: "fuzz")
    : try toolstack.addVif(to: guest.domain, servedBy: driverDomain.domain, mac: "00:16:3e:00:00:01")
  let isBackend = kind % 2 == 0
  let host = InputHost()
  do {
    let bus = try Bus(
      on: isBackend ? driverDomain : guest, queueHost: host,
      log: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() })
    switch kind {
    case 0: try bus.register(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    case 1: try bus.register(BlkFrontDevice())
    case 2: try bus.register(NetBackDriver { _ in EchoEnd() })
    default: try bus.register(NetFrontDevice())
    }
    bus.poll()

    let peer = isBackend ? guest : driverDomain
    let directory = StoreDirectory(isBackend ? device.frontendPath : device.backendPath, in: try peer.openXenstore())
    // Something real behind the numbers, for the keys that get that far.
    let pages = try peer.grants.share(pageCount: 2, with: (isBackend ? driverDomain : guest).domain, writable: true)
    let handle = try peer.openEventChannels()
    let port = try handle.allocateUnbound(for: (isBackend ? driverDomain : guest).domain)
    let names = isBackend ? frontendNames : backendNames
    if beginsSound {
      // What any change of one key is seen in: the other end as it ought to be.
      try directory.write(
        (isBackend ? frontendEntries(pages.references, port) : backendEntries)
          + [StoreEntry("state", (isBackend ? XenbusState.initialised : .initWait).rawValue)])
    }
    var steps = 0
    while !input.isEmpty, steps < 64 {
      steps += 1
      let name = input.pick(names)
      switch input.next(UInt8.self) % 12 {
      case 0: try? directory.write([StoreEntry("state", Int(input.next(UInt8.self) % 10))])
      case 1: try? directory.write([StoreEntry(name, pages.references[0].rawValue)])
      case 2: try? directory.write([StoreEntry(name, port.rawValue)])
      case 3: try? directory.write([StoreEntry(name, Int(input.next(Int8.self)))])
      case 4: try? directory.write([StoreEntry(name, input.next(UInt64.self))])
      case 5:
        let value = input.take(input.below(24))
        try? directory.store.write(directory.path(of: name), value, in: nil)
      case 6: try? directory.remove(name)
      case 7: try? directory.write([StoreEntry(name, input.next(UInt8.self) % 4)])
      // Where it goes on from where it is.
      case 8: try? directory.write([StoreEntry("state", XenbusState.connected.rawValue)])
      default:
        bus.poll()
        host.poll(0, budget: 4)
      }
    }
    bus.poll()
    host.pollAll()
    // Whatever the keys said, the bus goes on.
    try directory.write([StoreEntry("state", XenbusState.closed.rawValue)])
    for _ in 0..<4 { bus.poll() }
    bus.close()
    for _ in 0..<4 { bus.poll() }
    _ = (pages.references, handle)
  }
  require(loopback.grantCounts.mappedPages == 0 && loopback.grantCounts.sharedPages == 0, "all pages are given back")
  require(loopback.openPortCount == 0, "all ports are closed")
}

private func frontendEntries(_ references: [GrantReference], _ port: EventChannelPort) -> [StoreEntry] {
  [
    StoreEntry("ring-ref", references[0].rawValue), StoreEntry("event-channel", port.rawValue),
    StoreEntry("protocol", "x86_64-abi"), StoreEntry("tx-ring-ref", references[0].rawValue),
    StoreEntry("rx-ring-ref", references[1].rawValue), StoreEntry("request-rx-copy", true),
  ]
}

private let backendEntries = [
  StoreEntry("sectors", 64), StoreEntry("sector-size", 512), StoreEntry("info", 0), StoreEntry("feature-rx-copy", true),
]

private let frontendNames = [
  "state", "ring-ref", "ring-ref0", "ring-ref1", "ring-page-order", "num-ring-pages", "event-channel", "protocol",
  "feature-persistent", "feature-large-sector-size", "multi-queue-num-queues", "queue-0/ring-ref",
  "queue-0/event-channel", "queue-1/ring-ref", "queue-1/event-channel", "tx-ring-ref", "rx-ring-ref",
  "event-channel-tx", "event-channel-rx", "request-rx-copy", "feature-rx-notify", "feature-sg", "feature-gso-tcpv4",
  "feature-gso-tcpv6", "feature-no-csum-offload", "feature-ipv6-csum-offload", "request-multicast-control",
  "xdp-headroom", "ctrl-ring-ref", "event-channel-ctrl", "queue-0/tx-ring-ref", "queue-0/rx-ring-ref",
  "queue-0/event-channel-tx", "queue-0/event-channel-rx", "queue-1/tx-ring-ref", "queue-1/rx-ring-ref", "mac",
  "trusted",
  "backend", "backend-id",
]

private let backendNames = [
  "state", "sectors", "sector-size", "physical-sector-size", "info", "feature-barrier", "feature-flush-cache",
  "feature-discard", "discard-granularity", "discard-alignment", "discard-secure", "feature-persistent",
  "feature-max-indirect-segments", "max-ring-page-order", "max-ring-pages", "multi-queue-max-queues", "feature-rx-copy",
  "feature-rx-flip", "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-no-csum-offload",
  "feature-ipv6-csum-offload", "feature-split-event-channels", "feature-ctrl-ring", "feature-multicast-control",
  "feature-dynamic-multicast-control", "feature-xdp-headroom", "mtu", "mac", "online", "hotplug-status", "handle",
  "frontend", "frontend-id",
]
