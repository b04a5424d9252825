import NetIf

/// A frame that a card sends each time that it has connected (``NetFrontDevice/announcements``).
public enum NetFrontAnnouncement: Hashable, Sendable {
  /// That the card's host has this address: a gratuitous ARP.
  case address(IPv4Address)
  /// Whatever its host has made: an unsolicited neighbour advertisement, for one. Not sent when the card does not take
  /// frames of its length.
  case frame([UInt8])

  func frame(of card: MACAddress) -> [UInt8] {
    switch self {
    case .address(let address): card.gratuitousARP(for: address)
    case .frame(let bytes): bytes
    }
  }
}

extension Negotiation {
  /// How many pages of our own we got.
  mutating func add(_ name: String, ours: Int, wanted: Int, reason: String) {
    add(
      name, frontend: "\(wanted)", backend: "-", agreed: "\(ours)",
      reason: ours < wanted ? "no more can be shared: \(reason)" : "")
  }
}
