import NetIf
import TestSupport
import Testing

/// Extra infos of packets that a frontend sends: which pass, what they come to, and which refuse their packet alone.
struct NetTxExtraInfoTests {
  private static let group = MACAddress("01:00:5e:00:00:fb")!
  private static let everything = NetTxAgreement(
    scatterGather: true, offloads: .all, multicastControl: true, hashes: true)

  private static func first(_ size: UInt16, flags: UInt16 = 0, hasExtraInfo: Bool = true) -> NetIfTxRequest {
    NetIfTxRequest(
      gref: GrantReference(rawValue: 9), flags: flags | (hasExtraInfo ? NetIf.TxFlag.extraInfo : 0), id: 1, size: size)
  }

  /// The packet with these extra infos, in one slot besides.
  private func take(
    _ infos: [NetExtraInfo], flags: UInt16 = 0, size: UInt16 = 100, _ assembly: inout NetTxAssembly
  ) throws -> NetTxAssembly.Progress {
    var progress = try assembly.take(Self.first(size, flags: flags, hasExtraInfo: !infos.isEmpty))
    for (index, info) in infos.enumerated() {
      #expect(progress == .incomplete)
      progress = try assembly.take(NetIfExtraInfo(info, hasMore: index < infos.count - 1).transmitSlot)
    }
    return progress
  }

  static let infos: [NetExtraInfo] = [
    .segmentation(.tcpv4, payloadByteCount: 1448), .segmentation(.tcpv6, payloadByteCount: 1), .addMulticast(group),
    .removeMulticast(group), .hash(.ipv6TCP, value: 0x1234_5678), .headroom(byteCount: 0x7FFF),
  ]

  @Test(arguments: infos)
  func theyComeBackFromEitherSlotAsTheyWere(info: NetExtraInfo) throws {
    for hasMore in [false, true] {
      let raw = NetIfExtraInfo(info, hasMore: hasMore)
      #expect(raw.hasMore == hasMore)
      #expect(try NetExtraInfo(parsing: NetIfExtraInfo(raw.transmitSlot)) == info)
      #expect(try NetExtraInfo(parsing: NetIfExtraInfo(raw.receiveSlot)) == info)
      #expect(NetIfExtraInfo(raw.receiveSlot).hasMore == hasMore)
    }
  }

  @Test func whatWasAgreedOnGoesWithThePacket() throws {
    var assembly = NetTxAssembly(Self.everything)
    let progress = try take(
      [
        .segmentation(.tcpv6, payloadByteCount: 1220), .hash(.ipv6TCP, value: 0xFEDC_BA98), .headroom(byteCount: 256),
      ], flags: NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated, &assembly)
    #expect(progress == .packet && assembly.extraInfoCount == 3 && !assembly.isChecksumFixedUp)
    #expect(
      assembly.metadata
        == NetPacketMetadata(
          checksum: .blank, segmentation: .init(.tcpv6, payloadByteCount: 1220),
          hash: .init(.ipv6TCP, value: 0xFEDC_BA98)))
    // And with no other.
    #expect(try assembly.take(Self.first(64, hasExtraInfo: false)) == .packet)
    #expect(assembly.metadata == NetPacketMetadata() && assembly.extraInfoCount == 0)
  }

  @Test(arguments: infos.dropLast())
  func whatWasNotRefusesItsPacketAlone(info: NetExtraInfo) throws {
    var agreement = Self.everything
    switch info {
    case .segmentation(let kind, _):
      agreement.offloads.remove(kind == .tcpv4 ? .tcpv4Segmentation : .tcpv6Segmentation)
    case .addMulticast, .removeMulticast: agreement.multicastControl = false
    case .hash: agreement.hashes = false
    case .headroom: break
    }
    var assembly = NetTxAssembly(agreement)
    #expect(try take([info], &assembly) == .refused(.unagreed(info)))
    #expect(try assembly.take(Self.first(64, hasExtraInfo: false)) == .packet)
    var agreeing = NetTxAssembly(Self.everything)
    let progress = try take([info], &agreeing)
    #expect(progress == .packet || progress == .word(info))
  }

  @Test(arguments: infos)
  func whatIsSaidTwiceRefusesItsPacket(info: NetExtraInfo) throws {
    var assembly = NetTxAssembly(Self.everything)
    #expect(try take([info, info], &assembly) == .refused(.repeated(info)))
    #expect(assembly.extraInfoCount == 2)
    #expect(try assembly.take(Self.first(64, hasExtraInfo: false)) == .packet)
  }

  @Test func toJoinAndToLeaveAtOnceIsNothing() throws {
    var assembly = NetTxAssembly(Self.everything)
    let progress = try take([.addMulticast(Self.group), .removeMulticast(Self.group)], &assembly)
    #expect(progress == .refused(.repeated(.removeMulticast(Self.group))))
  }

  /// It is no packet, so that nothing is asked of its size.
  @Test(arguments: [0, 13, 64, 65535] as [UInt16])
  func aWordAboutAGroupIsNoPacket(size: UInt16) throws {
    var assembly = NetTxAssembly(Self.everything)
    #expect(try take([.addMulticast(Self.group)], size: size, &assembly) == .word(.addMulticast(Self.group)))
    #expect(try take([.removeMulticast(Self.group)], size: size, &assembly) == .word(.removeMulticast(Self.group)))
    #expect(try assembly.take(Self.first(64, hasExtraInfo: false)) == .packet)
  }

  @Test(
    arguments: [
      (0, .blank, true), (NetIf.TxFlag.dataValidated, .blank, true), (NetIf.TxFlag.checksumBlank, .blank, false),
    ] as [(UInt16, NetPacketMetadata.Checksum, Bool)])
  func whatIsToBeCutHasABlankChecksum(
    flags: UInt16, checksum: NetPacketMetadata.Checksum, isFixedUp: Bool
  ) throws {
    var assembly = NetTxAssembly(Self.everything)
    #expect(try take([.segmentation(.tcpv4, payloadByteCount: 1448)], flags: flags, &assembly) == .packet)
    #expect(assembly.metadata.checksum == checksum && assembly.isChecksumFixedUp == isFixedUp)
    #expect(try assembly.take(Self.first(64, hasExtraInfo: false)) == .packet && !assembly.isChecksumFixedUp)
  }

  @Test(
    arguments: [
      (0, .present), (NetIf.TxFlag.dataValidated, .validated), (NetIf.TxFlag.checksumBlank, .blank),
      (NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated, .blank),
    ] as [(UInt16, NetPacketMetadata.Checksum)])
  func theFirstSlotsFlagsSayWhoLooksAfterTheChecksum(flags: UInt16, checksum: NetPacketMetadata.Checksum) throws {
    var assembly = NetTxAssembly(Self.everything)
    #expect(try take([], flags: flags, &assembly) == .packet && assembly.metadata.checksum == checksum)
  }

  @Test func segmentsWithoutPayloadRefuseTheirPacket() throws {
    var assembly = NetTxAssembly(Self.everything)
    #expect(try assembly.take(Self.first(100)) == .incomplete)
    let raw = NetIfExtraInfo(type: NetIf.ExtraType.segmentation, words: (0, 1, 0))
    #expect(try assembly.take(raw.transmitSlot) == .refused(.extraInfo(.emptySegments)))
  }
}
