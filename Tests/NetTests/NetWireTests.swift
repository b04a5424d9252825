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
    offset: UInt16 = 0, flags: UInt16 = 0, size: UInt16 = 64
  ) -> Result<NetTxRequest, NetTxRequestFault> {
    let raw = NetIfTxRequest(gref: GrantReference(rawValue: 9), offset: offset, flags: flags, id: 3, size: size)
    do throws(NetTxRequestFault) { return .success(try NetTxRequest(parsing: raw)) } catch { return .failure(error) }
  }

  @Test(arguments: [(0, 14), (0, 4096), (4082, 14), (1, 4095)] as [(UInt16, UInt16)])
  func packetsWithinTheirPagePass(offset: UInt16, size: UInt16) throws {
    let request = try parse(offset: offset, flags: NetIf.TxFlag.dataValidated, size: size).get()
    #expect(request.offset == offset && request.byteCount == size && request.id == 3)
    #expect(request.reference == GrantReference(rawValue: 9))
  }

  @Test(arguments: [(0, 4097), (4083, 14), (4096, 14), (65535, 14), (65535, 65535), (1, 65535)] as [(UInt16, UInt16)])
  func packetsThatLeaveTheirPageDoNot(offset: UInt16, size: UInt16) {
    #expect(throws: NetTxRequestFault.outsidePage(offset: offset, byteCount: size)) {
      try parse(offset: offset, size: size).get()
    }
  }

  @Test(arguments: [0, 1, 13] as [UInt16])
  func packetsWithoutAHeaderDoNot(size: UInt16) {
    #expect(throws: NetTxRequestFault.tooShort(byteCount: size)) { try parse(size: size).get() }
  }

  @Test(arguments: [1, 3, 4, 8, 12, 0xFFFF] as [UInt16])
  func whatWasNotOfferedDoesNot(flags: UInt16) {
    #expect(throws: NetTxRequestFault.notNegotiated(flags: flags)) { try parse(flags: flags).get() }
  }

  /// Or a fragment would be taken for a packet, and an extra info for anything.
  @Test func aRefusalEndsWithItsPacket() {
    func slot(_ flags: UInt16, isExtraWithMore: Bool = false) -> NetIfTxRequest {
      NetIfTxRequest(gref: GrantReference(rawValue: isExtraWithMore ? 0x0101 : 0x0001), flags: flags, id: 5, size: 64)
    }
    var refusal = NetTxRefusal()
    #expect(refusal.response(to: slot(0)) == nil)
    // Extra infos, the first of which announces the second; then two fragments; then another packet.
    refusal.begin(slot(NetIf.TxFlag.extraInfo | NetIf.TxFlag.moreData))
    #expect(refusal.response(to: slot(0, isExtraWithMore: true))?.status == NetIf.Status.null)
    #expect(refusal.response(to: slot(NetIf.TxFlag.moreData))?.status == NetIf.Status.null)
    #expect(refusal.response(to: slot(NetIf.TxFlag.moreData))?.status == NetIf.Status.error)
    #expect(refusal.response(to: slot(0))?.id == 5)
    #expect(refusal.response(to: slot(0)) == nil)
    refusal.begin(slot(NetIf.TxFlag.extraInfo))
    #expect(refusal.response(to: slot(NetIf.TxFlag.moreData))?.status == NetIf.Status.null)
    #expect(refusal.response(to: slot(0)) == nil)
    refusal.begin(slot(NetIf.TxFlag.checksumBlank))
    #expect(refusal.response(to: slot(0)) == nil)
  }

  private func parse(_ raw: NetIfRxResponse, in slot: UInt16) -> Result<NetRxResult, NetResponseViolation> {
    do throws(NetResponseViolation) { return .success(try NetRxResult(parsing: raw, in: slot)) } catch {
      return .failure(error)
    }
  }

  @Test func receiveResponsesAreGated() throws {
    #expect(
      try parse(NetIfRxResponse(id: 7, offset: 2, flags: NetIf.RxFlag.dataValidated, status: 4094), in: 7).get()
        == .frame(offset: 2, byteCount: 4094))
    for failed in [
      NetIfRxResponse(id: 7, status: -1), NetIfRxResponse(id: 7, offset: 0xFFFF, status: Int16.min),
      NetIfRxResponse(id: 7, status: 0), NetIfRxResponse(id: 7, status: 13),
      NetIfRxResponse(id: 7, flags: NetIf.RxFlag.checksumBlank, status: 64),
    ] { #expect(try parse(failed, in: 7).get() == .failed) }
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
  }

  @Test(arguments: [1, 2, Int16.max])
  func transmitStatusesThatMeanNothingAreViolations(status: Int16) throws {
    #expect(throws: NetResponseViolation.txStatus(id: 4, status: status)) {
      try NetTxResult(parsing: NetIfTxResponse(id: 4, status: status))
    }
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: -2)) == .dropped)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: -1)) == .failed)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: Int16.min)) == .failed)
    #expect(try NetTxResult(parsing: NetIfTxResponse(id: 4, status: 0)) == .sent)
  }
}
