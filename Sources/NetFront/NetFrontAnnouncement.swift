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
