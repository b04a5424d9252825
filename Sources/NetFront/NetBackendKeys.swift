import NetIf

/// What a backend offers before our rings are there: the gate for these keys (io/netif.h).
struct NetBackendKeys {
  let copies: Bool
  let splitsEventChannels: Bool
  let takesSeveralSlots: Bool
  /// What it takes unfinished.
  let offloads: NetOffloads
  let maxQueueCount: Int
  let filtersMulticast: Bool
  /// Whether it does so whenever it is asked to, and not at the beginning only.
  let filtersMulticastAtAnyTime: Bool
  let hasControlRing: Bool
  let leavesHeadroom: Bool

  init(from backend: StoreDirectory) throws(DeviceError) {
    copies = try backend.flag("feature-rx-copy")
    splitsEventChannels = try backend.flag("feature-split-event-channels")
    takesSeveralSlots = try backend.flag("feature-sg")
    var offloads: NetOffloads = []
    // Absent means that this one is done, and that the others are not.
    if try !backend.flag("feature-no-csum-offload") { offloads.insert(.ipv4Checksum) }
    if try backend.flag("feature-ipv6-csum-offload") { offloads.insert(.ipv6Checksum) }
    if try backend.flag("feature-gso-tcpv4") { offloads.insert(.tcpv4Segmentation) }
    if try backend.flag("feature-gso-tcpv6") { offloads.insert(.tcpv6Segmentation) }
    self.offloads = offloads
    // Whatever is more than anybody uses is as good as that.
    maxQueueCount = Int(
      min(max(try backend.optionalNumber("multi-queue-max-queues", as: UInt64.self) ?? 1, 1), 1 << 16))
    filtersMulticast = try backend.flag("feature-multicast-control")
    filtersMulticastAtAnyTime = try backend.flag("feature-dynamic-multicast-control")
    leavesHeadroom = try backend.flag("feature-xdp-headroom")
    hasControlRing = try backend.flag("feature-ctrl-ring")
  }
}

extension NetFeatures {
  /// What of the offloads we may say that we take, and use: segments need several slots and a blank checksum.
  var usableOffloads: NetOffloads { offloads.usable(scatterGather: scatterGather) }

  /// What is used of what this backend offers.
  func agreedOffloads(with backend: NetBackendKeys) -> NetOffloads {
    offloads.intersection(backend.offloads).usable(scatterGather: scatterGather && backend.takesSeveralSlots)
  }

  /// What may arrive; a backend goes by what we say, and not by what it offers itself.
  var receiveAgreement: NetRxAgreement {
    NetRxAgreement(scatterGather: scatterGather, offloads: usableOffloads, hashes: controlRing, headroom: false)
  }

  /// The offers that say this.
  var entries: [StoreEntry] {
    let offloads = usableOffloads
    return [
      StoreEntry("request-rx-copy", true), StoreEntry("feature-rx-notify", true),
      StoreEntry("feature-sg", scatterGather),
      StoreEntry("feature-no-csum-offload", !offloads.contains(.ipv4Checksum)),
      StoreEntry("feature-ipv6-csum-offload", offloads.contains(.ipv6Checksum)),
      StoreEntry("feature-gso-tcpv4", offloads.contains(.tcpv4Segmentation)),
      StoreEntry("feature-gso-tcpv6", offloads.contains(.tcpv6Segmentation)),
    ]
  }

  /// What both sides offer and what comes of it.
  func report(_ backend: NetBackendKeys, in negotiation: inout Negotiation) {
    negotiation.add("feature-rx-copy", frontend: true, backend: backend.copies)
    negotiation.add(
      "feature-split-event-channels", frontend: splitEventChannels, backend: backend.splitsEventChannels)
    negotiation.add("feature-sg", frontend: scatterGather, backend: backend.takesSeveralSlots)
    negotiation.add("feature-ctrl-ring", frontend: controlRing, backend: backend.hasControlRing)
    let agreed = agreedOffloads(with: backend)
    for (name, offload) in [
      ("ipv4 checksum offload", .ipv4Checksum), ("feature-ipv6-csum-offload", .ipv6Checksum),
      ("feature-gso-tcpv4", .tcpv4Segmentation), ("feature-gso-tcpv6", .tcpv6Segmentation),
    ] as [(String, NetOffloads)] {
      let (ours, theirs) = (offloads.contains(offload), backend.offloads.contains(offload))
      guard ours, theirs, !agreed.contains(offload) else {
        negotiation.add(name, frontend: ours, backend: theirs)
        continue
      }
      negotiation.add(
        name, frontend: "yes", backend: "yes", agreed: "off",
        reason: "it needs feature-sg and the checksum offload of its protocol")
    }
  }
}

extension NetOffloads {
  fileprivate func usable(scatterGather: Bool) -> NetOffloads {
    var usable = self
    if !scatterGather || !contains(.ipv4Checksum) { usable.remove(.tcpv4Segmentation) }
    if !scatterGather || !contains(.ipv6Checksum) { usable.remove(.tcpv6Segmentation) }
    return usable
  }
}
