import NetIf
import TestSupport
import Testing

/// Transmit slots to packets: what passes, what its packet alone is refused for, and what no frontend may send.
struct NetAssemblyTests {
  private typealias Progress = NetTxAssembly.Progress

  private static func slot(
    _ size: UInt16, offset: UInt16 = 0, more: Bool = false, flags: UInt16 = 0, id: UInt16 = 0
  ) -> NetIfTxRequest {
    NetIfTxRequest(
      gref: GrantReference(rawValue: 9), offset: offset, flags: flags | (more ? NetIf.TxFlag.moreData : 0), id: id,
      size: size)
  }

  /// What the packet of these slots comes to; each but the last one must leave it incomplete.
  private func outcome(_ slots: [NetIfTxRequest], scatterGather: Bool = true) throws -> Progress {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: scatterGather))
    return try take(slots, &assembly)
  }

  private func take(_ slots: [NetIfTxRequest], _ assembly: inout NetTxAssembly) throws -> Progress {
    for slot in slots.dropLast() {
      let progress = try assembly.take(slot)
      #expect(progress == .incomplete)
    }
    return try assembly.take(slots.last!)
  }

  @Test(arguments: [(0, 14), (0, 4096), (4082, 14), (1, 4095)] as [(UInt16, UInt16)])
  func packetsWithinTheirPagePass(offset: UInt16, size: UInt16) throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: false))
    let progress = try assembly.take(Self.slot(size, offset: offset, flags: NetIf.TxFlag.dataValidated, id: 3))
    #expect(progress == .packet && assembly.fragmentCount == 1 && assembly.byteCount == size)
    #expect(assembly.first.offset == offset && assembly.first.byteCount == size && assembly.first.id == 3)
    #expect(assembly.first.reference == GrantReference(rawValue: 9))
  }

  @Test(arguments: [(0, 4097), (4083, 14), (4096, 14), (65535, 14), (65535, 65535), (1, 65535)] as [(UInt16, UInt16)])
  func packetsThatLeaveTheirPageDoNot(offset: UInt16, size: UInt16) throws {
    #expect(try outcome([Self.slot(size, offset: offset)]) == .refused(.outsidePage(offset: offset, byteCount: size)))
  }

  @Test(arguments: [0, 1, 13] as [UInt16])
  func packetsWithoutAHeaderDoNot(size: UInt16) throws {
    #expect(try outcome([Self.slot(size)]) == .refused(.tooShort(byteCount: size)))
  }

  @Test func theFirstFragmentIsWhatTheOthersLeaveOfThePacket() throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    let progress = try take(
      [Self.slot(65535, more: true, id: 7)] + (0..<15).map { Self.slot(4096, more: $0 < 14, id: 8 + $0) }, &assembly)
    #expect(progress == .packet)
    #expect(assembly.byteCount == 65535 && assembly.fragmentCount == 16 && assembly.extraInfoCount == 0)
    #expect(assembly.first.byteCount == 4095 && assembly.first.id == 7 && assembly.others[14].byteCount == 4096)
  }

  /// However small they are; linear memory makes nothing of it.
  @Test func tinyAndEmptyFragmentsPass() throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    let sizes: [UInt16] = [1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    let progress = try take(
      [Self.slot(14, more: true)] + sizes.enumerated().map { Self.slot($1, offset: 4095, more: $0 < 16) }, &assembly)
    #expect(progress == .packet && assembly.fragmentCount == 18)
    #expect(assembly.first.byteCount == 1 && assembly.others.map(\.byteCount) == sizes)
  }

  @Test(arguments: [[64, 64], [64, 65], [64, 32, 32], [14, 65535, 65535], [13, 0]] as [[UInt16]])
  func sizesThatLeaveTheFirstFragmentNothingDoNot(sizes: [UInt16]) throws {
    let slots = sizes.enumerated().map { Self.slot($1, more: $0 < sizes.count - 1) }
    guard case .refused(let fault) = try outcome(slots) else {
      Issue.record("\(sizes) passed")
      return
    }
    switch fault {
    case .sizes, .outsidePage, .tooShort: break
    default: Issue.record("\(fault)")
    }
  }

  @Test(
    arguments: [
      ([(0, 200), (4095, 2)], (4095, 2)), ([(4090, 200), (0, 100)], (4090, 100)),
      ([(0, 200), (65535, 65535)], (65535, 65535)),
      ([(0, 8192), (0, 4095)], (0, 4097)),
    ] as [([(UInt16, UInt16)], (UInt16, UInt16))])
  func fragmentsThatLeaveTheirPageDoNot(slots: [(UInt16, UInt16)], fault: (UInt16, UInt16)) throws {
    let slots = slots.enumerated().map { Self.slot($1.1, offset: $1.0, more: $0 < slots.count - 1) }
    #expect(try outcome(slots) == .refused(.outsidePage(offset: fault.0, byteCount: fault.1)))
  }

  @Test func severalSlotsNeedTheirFeature() throws {
    #expect(try outcome([Self.slot(200, more: true), Self.slot(100)], scatterGather: false) == .refused(.severalSlots))
  }

  /// It is the first slot that says so, and of one packet.
  @Test func aBlankChecksumIsItsPacketsAlone() throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    let blank = NetIf.TxFlag.checksumBlank
    #expect(try assembly.take(Self.slot(64, more: true, flags: blank)) == .incomplete)
    #expect(try assembly.take(Self.slot(32)) == .packet && assembly.metadata.checksum == .blank)
    #expect(try assembly.take(Self.slot(64, more: true)) == .incomplete)
    #expect(try assembly.take(Self.slot(32, flags: blank)) == .packet && assembly.metadata.checksum == .present)
  }

  @Test(arguments: [19, 20])
  func packetsOfMoreSlotsThanAgreedAreRefusedWhole(count: Int) throws {
    let slots = (0..<count).map { Self.slot($0 == 0 ? 1000 : 10, more: $0 < count - 1) }
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    #expect(try take(slots, &assembly) == .refused(.tooManyFragments))
    #expect(assembly.fragmentCount == count)
    #expect(try assembly.take(Self.slot(64)) == .packet)
  }

  @Test(arguments: [true, false])
  func aChainWithoutEndIsAViolation(scatterGather: Bool) throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: scatterGather))
    for _ in 0..<20 { #expect(try assembly.take(Self.slot(100, more: true)) == .incomplete) }
    #expect(throws: NetTxViolation.tooManyFragments) { try assembly.take(Self.slot(100, more: true)) }
  }

  @Test func extraInfosWithoutEndAreAViolation() throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    #expect(try assembly.take(Self.slot(100, flags: NetIf.TxFlag.extraInfo)) == .incomplete)
    let extra = NetIfExtraInfo(type: 1, flags: NetIf.extraFlagMore, words: (0, 0, 0)).transmitSlot
    for _ in 0..<5 { #expect(try assembly.take(extra) == .incomplete) }
    #expect(throws: NetTxViolation.tooManyExtraInfos) { try assembly.take(extra) }
  }

  /// Their bytes look like anything; the slots behind them are still those of one packet.
  @Test func extraInfosComeBeforeTheFurtherFragments() throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    let group = MACAddress("01:00:5e:00:00:01")!
    let progress = try take(
      [
        Self.slot(200, more: true, flags: NetIf.TxFlag.extraInfo, id: 1),
        // Data that reads as a slot with moreData and extraInfo.
        NetIfExtraInfo(type: 2, flags: 1, words: (0x0001, 0x005E, 0x0100)).transmitSlot,
        NetIfExtraInfo(type: 4, words: (0x0101, 0xFFFF, 0xFFFF)).transmitSlot, Self.slot(50, more: true, id: 2),
        Self.slot(50, id: 3),
      ], &assembly)
    #expect(progress == .refused(.unagreed(.addMulticast(group))))
    #expect(assembly.fragmentCount == 3 && assembly.extraInfoCount == 2 && assembly.others[1].id == 3)
    #expect(try assembly.take(Self.slot(64)) == .packet)
    #expect(assembly.extraInfoCount == 0 && assembly.fragmentCount == 1)
  }

  @Test func unknownExtraInfosConcernTheirPacketAlone() throws {
    var assembly = NetTxAssembly(NetTxAgreement(scatterGather: true))
    let progress = try take(
      [
        Self.slot(64, flags: NetIf.TxFlag.extraInfo), NetIfExtraInfo(type: 6, words: (0, 0, 0)).transmitSlot,
      ], &assembly)
    #expect(progress == .refused(.extraInfo(.unknownType(6))))
    #expect(try assembly.take(Self.slot(64)) == .packet)
  }

  /// Whatever the slots hold, none traps, and each belongs to one packet.
  @Test(arguments: seeds(1...200, of: NetAssemblyTests.self))
  func randomSlotsAreEachAccountedForOnce(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let agreement = NetTxAgreement(
      scatterGather: seed.modulo(4) != 0, offloads: NetOffloads(rawValue: UInt8(seed.modulo(16))),
      multicastControl: seed.modulo(2) == 0, hashes: seed.modulo(3) == 0)
    var assembly = NetTxAssembly(agreement)
    var (shown, accounted, wholeCount) = (0, 0, 0)
    for _ in 0..<400 {
      let isWild = Int.random(in: 0..<4, using: &random) == 0
      let slot = NetIfTxRequest(
        gref: GrantReference(rawValue: UInt32.random(in: 0...(isWild ? .max : 0x0205), using: &random)),
        offset: UInt16.random(in: 0...(isWild ? .max : 200), using: &random),
        flags: UInt16.random(in: 0...(isWild ? .max : 15), using: &random), id: UInt16(shown),
        size: UInt16.random(in: 0...(isWild ? .max : 400), using: &random))
      shown += 1
      let (whole, begins) = (assembly.whole(slot), accounted == shown - 1)
      do {
        let progress = try assembly.take(slot)
        // The short way is for whole packets, and for all of them.
        let isWhole = begins && progress == .packet
        #expect((whole != nil) == isWhole)
        if let whole, isWhole {
          #expect(whole.fragment == assembly.first && whole.checksum == assembly.metadata.checksum)
          #expect(assembly.fragmentCount == 1 && assembly.extraInfoCount == 0 && assembly.metadata.hash == nil)
          wholeCount += 1
        }
        switch progress {
        case .incomplete: break
        case .packet:
          let fragments = [assembly.first] + (assembly.fragmentCount > 1 ? assembly.others : [])
          let total = fragments.reduce(0) { $0 + Int($1.byteCount) }
          #expect(total == Int(assembly.byteCount) && assembly.first.byteCount > 0)
          for fragment in fragments { #expect(Int(fragment.offset) + Int(fragment.byteCount) <= xenPageSize) }
          accounted += assembly.fragmentCount + assembly.extraInfoCount
          #expect(accounted == shown)
        case .refused, .word:
          accounted += assembly.fragmentCount + assembly.extraInfoCount
          #expect(accounted == shown)
        }
      } catch {
        #expect(whole == nil)
        assembly = NetTxAssembly(agreement)
        accounted = shown
      }
    }
    #expect(wholeCount > 0)
  }
}
