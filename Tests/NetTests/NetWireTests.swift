import NetIf
import TestSupport
import Testing

/// The bytes of io/netif.h, and the gates that raw ones pass.
struct NetWireTests {
  private func bytes<Slot: BitwiseCopyable>(_ slot: Slot) -> [UInt8] {
    // Safe: every byte of a slot belongs to a property.
    unsafe withUnsafeBytes(of: slot) { unsafe Array($0) }
  }

  @Test func slotsHaveTheHeadersBytes() {
    #expect(
      bytes(
        NetIfTxRequest(
          gref: GrantReference(rawValue: 0x0403_0201), offset: 0x0605, flags: 0x0807, id: 0x0A09, size: 0x0C0B))
        == Array(1...12))
    #expect(bytes(NetIfTxResponse(id: 0x0201, status: 0x0403)) == Array(1...4))
    #expect(
      bytes(NetIfRxRequest(id: 0x0201, gref: GrantReference(rawValue: 0x0605_0403))) == [1, 2, 0, 0, 3, 4, 5, 6])
    #expect(
      bytes(NetIfRxResponse(id: 0x0201, offset: 0x0403, flags: 0x0605, status: 0x0807)) == Array(1...8))
    #expect(bytes(NetIfTxResponse(id: 0, status: NetIf.Status.error)) == [0, 0, 0xFF, 0xFF])
    #expect(bytes(NetIfTxResponse(id: 0, status: NetIf.Status.dropped)) == [0, 0, 0xFE, 0xFF])
  }

  @Test func stridesAreTheHeaders() {
    #expect(MemoryLayout<NetIfTxRequest>.stride == 12 && MemoryLayout<NetIfTxResponse>.stride == 4)
    #expect(MemoryLayout<NetIfRxRequest>.stride == 8 && MemoryLayout<NetIfRxResponse>.stride == 8)
  }

  @Test(arguments: ["00:16:3e:00:00:01", "00:16:3E:ab:CD:ef", "ff:ff:ff:ff:ff:ff"])
  func addressesAreRead(text: String) throws {
    let address = try #require(MACAddress(text))
    #expect(address.description == text.lowercased())
    #expect(MACAddress(address.bytes) == address)
    #expect(address.bytes[0] == UInt8(text.prefix(2), radix: 16))
    #expect(address.bytes[5] == UInt8(text.suffix(2), radix: 16))
  }

  @Test(arguments: [
    "", "00", "00:16:3e:00:00", "00:16:3e:00:00:0", "00:16:3e:00:00:001", "00:16:3e:00:00:01:", "00:16:3e:00:00:01:02",
    "00-16-3e-00-00-01", "0:16:3e:00:00:011", "00:16:3g:00:00:01", " 0:16:3e:00:00:01", "+0:16:3e:00:00:01",
    "００:16:3e:00:00:01",
  ])
  func whatIsNoAddressIsRefused(text: String) { #expect(MACAddress(text) == nil) }

  @Test func groupsAreToldFromCards() throws {
    #expect(try #require(MACAddress("01:00:5e:00:00:01")).isGroup)
    #expect(try !#require(MACAddress("00:00:00:00:00:00")).namesOneCard)
    #expect(try #require(MACAddress("02:00:00:00:00:00")).namesOneCard)
  }

  private func parse(
    _ raw: NetIfRxResponse, in slot: UInt16, scatterGather: Bool = false
  ) -> Result<NetRxFragment, NetResponseViolation> {
    do throws(NetResponseViolation) {
      return .success(try NetRxFragment(parsing: raw, in: slot, under: NetRxAgreement(scatterGather: scatterGather)))
    } catch { return .failure(error) }
  }

  /// The short way takes what the gate says is a frame of one slot, and nothing else. A flag that means nothing goes the long way.
  @Test(arguments: [
    NetRxAgreement(scatterGather: false), NetRxAgreement(scatterGather: true, offloads: .ipv6Checksum),
    NetRxAgreement(scatterGather: true, offloads: .all, hashes: true, headroom: true),
  ])
  func aWholeFrameIsOneByTheGate(agreement: NetRxAgreement) {
    var wholeCount = 0
    for flags in Array(0...31) + [32, 0x8001] as [UInt16] {
      for status in [.min, -1, 0, 13, 14, 60, 4096, 4097, .max] as [Int16] {
        for offset in [0, 1, 4036, 4082, 4083, 0xFFFF] as [UInt16] {
          for id in [6, 7] as [UInt16] {
            let raw = NetIfRxResponse(id: id, offset: offset, flags: flags, status: status)
            let fragment = try? NetRxFragment(parsing: raw, in: 7, under: agreement)
            let isWhole =
              flags < 32
              && fragment.map { !$0.hasMore && !$0.hasExtraInfo && !$0.isFailed && $0.byteCount >= 14 } ?? false
            #expect(agreement.whole(raw, in: 7) == (isWhole ? fragment : nil), "\(raw)")
            if isWhole { wholeCount += 1 }
          }
        }
      }
    }
    #expect(wholeCount > 0)
  }

  @Test func receiveResponsesAreGated() throws {
    let good = try parse(NetIfRxResponse(id: 7, offset: 2, flags: NetIf.RxFlag.dataValidated, status: 4094), in: 7)
      .get()
    #expect(good.offset == 2 && good.byteCount == 4094 && !good.hasMore && !good.isFailed)
    for failed in [
      NetIfRxResponse(id: 7, status: -1), NetIfRxResponse(id: 7, offset: 0xFFFF, status: Int16.min),
      NetIfRxResponse(id: 7, flags: NetIf.RxFlag.checksumBlank, status: 64),
    ] { #expect(try parse(failed, in: 7).get().isFailed) }
    #expect(throws: NetResponseViolation.rxOutOfSlot(slot: 7, id: 8)) {
      try parse(NetIfRxResponse(id: 8, status: 64), in: 7).get()
    }
    for (offset, status) in [(0, 4097), (3, 4094), (0xFFFF, 1), (0xFFFF, Int16.max)] as [(UInt16, Int16)] {
      #expect(throws: NetResponseViolation.rxOutsidePage(slot: 7, offset: offset, byteCount: status)) {
        try parse(NetIfRxResponse(id: 7, offset: offset, status: status), in: 7).get()
      }
    }
    for flags in [4, 8, 16] as [UInt16] {
      #expect(throws: NetResponseViolation.rxNotNegotiated(slot: 7, flags: flags)) {
        try parse(NetIfRxResponse(id: 7, flags: flags, status: 64), in: 7).get()
      }
    }
    for status in [64, 0, -1] as [Int16] {
      let more = NetIfRxResponse(id: 7, flags: NetIf.RxFlag.moreData, status: status)
      #expect(try parse(more, in: 7, scatterGather: true).get().hasMore)
    }
  }

  @Test(arguments: [2, 3, Int16.max])
  func transmitStatusesThatMeanNothingAreViolations(status: Int16) throws {
    #expect(throws: NetResponseViolation.txStatus(id: 4, status: status)) {
      try NetTxResult(parsing: NetIfTxResponse(id: 4, status: status))
    }
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: -2)) == .dropped)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: -1)) == .failed)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: Int16.min)) == .failed)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: 0)) == .sent)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: 1)) == .extraInfo)
  }
}
