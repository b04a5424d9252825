import NetIf
import Testing

/// All that goes with a packet is one word: no part of it touches another.
struct NetPacketMetadataTests {
  private static let checksums: [NetPacketMetadata.Checksum] = [.present, .validated, .blank]
  private static let segmentations: [NetPacketMetadata.Segmentation?] = [
    nil, .init(.tcpv4, payloadByteCount: 1), .init(.tcpv6, payloadByteCount: .max),
    .init(.tcpv4, payloadByteCount: 1448),
  ]
  private static let hashes: [NetPacketMetadata.Hash?] = [
    nil, .init(.ipv4, value: 0), .init(.ipv4TCP, value: .max), .init(.ipv6, value: 0x8000_0001),
    .init(.ipv6TCP, value: 0x1234_5678),
  ]

  private static let all: [(NetPacketMetadata.Checksum, NetPacketMetadata.Segmentation?, NetPacketMetadata.Hash?)] =
    checksums.flatMap { checksum in
      segmentations.flatMap { segmentation in hashes.map { (checksum, segmentation, $0) } }
    }

  @Test func eachPartIsWhatItWasMadeWith() {
    for (checksum, segmentation, hash) in Self.all {
      let metadata = NetPacketMetadata(checksum: checksum, segmentation: segmentation, hash: hash)
      #expect(metadata.checksum == checksum && metadata.segmentation == segmentation && metadata.hash == hash)
    }
    #expect(NetPacketMetadata() == NetPacketMetadata(checksum: .present))
  }

  /// From each to each, one part after the other in every order.
  @Test func aPartThatIsSetLeavesTheOthersAsTheyAre() {
    for former in Self.all {
      for (checksum, segmentation, hash) in Self.all {
        let expected = NetPacketMetadata(checksum: checksum, segmentation: segmentation, hash: hash)
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
          var metadata = NetPacketMetadata(checksum: former.0, segmentation: former.1, hash: former.2)
          for part in order {
            switch part {
            case 0: metadata.checksum = checksum
            case 1: metadata.segmentation = segmentation
            default: metadata.hash = hash
            }
          }
          guard metadata != expected else { continue }
          Issue.record("\(former) to \(expected) by \(order): \(metadata)")
        }
      }
    }
  }
}
