import NetIf
import XenRing

/// What the guest sends: the transmit ring, and memory for the packets of a batch.
///
/// A packet's way: slots, a validated packet, its bytes copied in, responses, the end. Each step is done for a whole batch,
/// so that the platform is called once for it.
struct NetBackTransmit: ~Copyable {
  /// How many slots one batch takes at most.
  static let batchCount = 128

  /// All slots of a packet, in the order of the ring: each answer goes into the slot of its request.
  private struct Packet: BitwiseCopyable {
    /// What becomes of it.
    enum Fate: BitwiseCopyable { case delivered, refused, answered }

    let metadata: NetPacketMetadata
    /// Where its bytes lie, in one piece, so that its headers do (XSA-423).
    let offset: UInt32
    let byteCount: UInt16
    /// Its first slot's; then come the extra infos, and then the others, whose ids are in `otherIDs`.
    let id: UInt16
    let extraInfoCount: UInt8
    let otherIDCount: UInt8
    /// One for each fragment that has bytes.
    let copyCount: UInt8
    let fate: Fate
  }

  private var ring: BackRing<NetIfTxRequest, NetIfTxResponse>
  private let grants: any GrantTable
  private let frontend: DomainID
  private var assembly: NetTxAssembly
  /// A page for each slot of a batch, and as much as a packet may have in slots of the batches before.
  private let pages = PrivatePages(pageCount: batchCount + NetIf.maxFragmentCount)
  private let buffer: SharedBytes
  private var bufferByteCount = 0
  /// Of the batch under way, in the guest's order.
  private var packets = PlainArray<Packet>(capacity: batchCount)
  private var otherIDs = PlainArray<UInt16>(capacity: slotCount)
  private var copies = PlainArray<GrantCopy>(capacity: slotCount)
  private var frames = PlainArray<NetworkFrame>(capacity: batchCount)
  /// Of the packets that end in a batch, at most: the batch's own, and those of one packet that came before.
  private static let slotCount = batchCount + NetIf.fatalFragmentCount
  private(set) var counts = NetCounts()
  private(set) var checksumsFilled: UInt64 = 0
  /// Packets that were to be cut, and those of them whose checksum was not said to be blank.
  private(set) var segmentedCount: UInt64 = 0
  private(set) var checksumFixups: UInt64 = 0
  /// What the end takes unfinished.
  private let offloads: NetOffloads
  private let groups: NetBackGroups
  /// Nil when the guest may send as much as it likes.
  private var credit: NetBackCredit?
  private let refusal: FirstFault<NetTxPacketFault>

  init(ring: consuming BackRing<NetIfTxRequest, NetIfTxResponse>, connection: NetBackConnection) {
    self.ring = ring
    grants = connection.grants
    frontend = connection.frontend
    refusal = connection.refusal
    offloads = connection.offered.offloads
    groups = connection.groups
    credit = connection.rate.map { NetBackCredit($0) }
    assembly = NetTxAssembly(
      NetTxAgreement(
        scatterGather: connection.offered.scatterGather, offloads: connection.offered.offloads,
        multicastControl: connection.offered.multicastControl, hashes: connection.takes.hashes))
    buffer = pages.bytes
  }

  var ringStatistics: RingStatistics { ring.statistics }
  var ringDump: String { ring.dump() }

  /// Slots to validated packets and their copies. A packet whose slots have not all arrived waits for the rest.
  ///
  /// - Parameters:
  ///   - limit: of slots, at most ``batchCount``.
  ///   - now: when; by which credit is given.
  /// - Returns: how many slots there were.
  mutating func take(limit: Int, now: Uptime) throws(DeviceError) -> Int {
    do throws(RingViolation) { _ = try ring.available() } catch {
      throw .protocolViolation("\(NetRingViolation(.tx, error))")
    }
    ring.expectRequests(UInt32(limit))
    credit?.refill(at: now)
    var taken = 0
    while taken < limit, credit?.isUsedUp != true, let raw = ring.next() {
      taken += 1
      if let (fragment, checksum) = assembly.whole(raw) {
        addWhole(fragment, NetPacketMetadata(checksum: checksum))
        continue
      }
      do throws(NetTxViolation) {
        switch try assembly.take(raw) {
        case .incomplete: break
        case .packet: addPacket()
        case .word(let info): addAnswer(refusing: groups.follow(info))
        case .refused(let fault): addAnswer(refusing: fault)
        }
      } catch { throw .protocolViolation("\(error)") }
    }
    return taken
  }

  /// A packet of one slot, and nothing else.
  @inline(__always) private mutating func addWhole(_ fragment: NetTxFragment, _ metadata: NetPacketMetadata) {
    var end = bufferByteCount
    addCopy(of: fragment, to: &end)
    packets.append(
      Packet(
        metadata: metadata, offset: UInt32(truncatingIfNeeded: bufferByteCount), byteCount: fragment.byteCount,
        id: fragment.id, extraInfoCount: 0, otherIDCount: 0, copyCount: 1, fate: .delivered))
    endPacket(at: end)
  }

  private mutating func addPacket() {
    let copied = copies.count
    var end = bufferByteCount
    addCopy(of: assembly.first, to: &end)
    if assembly.fragmentCount > 1 { for fragment in assembly.others { addCopy(of: fragment, to: &end) } }
    let byteCount = end - bufferByteCount
    append(.delivered, byteCount: byteCount, copyCount: copies.count - copied, assembly.metadata)
    if assembly.isChecksumFixedUp { checksumFixups &+= 1 }
    endPacket(at: end)
  }

  @inline(__always) private mutating func endPacket(at end: Int) {
    credit?.use(end &- bufferByteCount)
    // The next one begins at a cache line; a page holds whole ones.
    bufferByteCount = (end &+ 63) & ~63
  }

  /// What is in the assembly is one of the batch. Put together where it stays: elsewhere, and read there at once in other
  /// pieces than it was written in, it would have to wait for itself.
  @inline(__always) private mutating func append(
    _ fate: Packet.Fate, byteCount: Int = 0, copyCount: Int = 0, _ metadata: NetPacketMetadata = NetPacketMetadata()
  ) {
    if assembly.fragmentCount > 1 { for fragment in assembly.others { otherIDs.append(fragment.id) } }
    packets.append(
      Packet(
        metadata: metadata, offset: UInt32(bufferByteCount), byteCount: UInt16(byteCount), id: assembly.first.id,
        extraInfoCount: UInt8(assembly.extraInfoCount), otherIDCount: UInt8(assembly.fragmentCount - 1),
        copyCount: UInt8(copyCount), fate: fate))
  }

  /// What is in the assembly is only answered: with an error where there is a fault.
  private mutating func addAnswer(refusing fault: NetTxPacketFault?) {
    append(fault == nil ? .answered : .refused)
    if let fault { countRefused(for: fault) }
  }

  /// A fragment without bytes needs none, and is answered as the others are.
  @inline(__always) private mutating func addCopy(of fragment: NetTxFragment, to end: inout Int) {
    let byteCount = Int(fragment.byteCount)
    guard byteCount > 0 else { return }
    copies.append(
      GrantCopy(
        .fromGrant, local: buffer.slice(from: end, count: byteCount), reference: fragment.reference, of: frontend,
        offset: fragment.offset))
    end += byteCount
  }

  private mutating func countRefused(for fault: NetTxPacketFault) {
    counts.errors &+= 1
    refusal.tell(fault)
  }

  /// The batch's bytes are copied in, its slots answered, and its frames handed to the end.
  mutating func deliver(to end: any NetworkEnd, answering guest: inout FrameQueue) {
    guard !packets.isEmpty else { return }
    runCopies()
    var (nextID, nextCopy) = (0, 0)
    for index in 0..<packets.count {
      let packet = packets[index]
      var metadata = packet.metadata
      let bytes = buffer.slice(from: Int(packet.offset), count: Int(packet.byteCount))
      let isGood =
        isCopied(packet, &nextCopy) && packet.fate != .refused
        && (metadata.checksum != .blank || finish(NetworkFrame(bytes), &metadata))
      // From here on the frame is ours, whatever becomes of it.
      answer(packet, isGood ? NetIf.Status.okay : NetIf.Status.error, &nextID)
      guard isGood, packet.fate == .delivered else { continue }
      counts.count(packetOf: Int(packet.byteCount))
      if metadata.segmentation != nil { segmentedCount &+= 1 }
      frames.append(NetworkFrame(bytes, metadata))
    }
    packets.removeAll()
    otherIDs.removeAll()
    copies.removeAll()
    bufferByteCount = 0
    guard !frames.isEmpty else { return }
    frames.withSpan { end.take($0, answering: &guest) }
    frames.removeAll()
  }

  /// Whether all of a packet has been copied; where it has not, that is counted.
  @inline(__always) private mutating func isCopied(_ packet: Packet, _ nextCopy: inout Int) -> Bool {
    let first = nextCopy
    nextCopy &+= Int(packet.copyCount)
    if packet.copyCount == 1, copies[first].status == .okay { return true }
    return areCopied(first..<nextCopy)
  }

  private mutating func areCopied(_ places: Range<Int>) -> Bool {
    for place in places where copies[place].status != .okay {
      countRefused(for: .unreadable(copies[place].reference, copies[place].status))
      return false
    }
    return true
  }

  @inline(__always) private mutating func answer(_ packet: Packet, _ status: Int16, _ nextID: inout Int) {
    ring.put(NetIfTxResponse(id: packet.id, status: status))
    if packet.extraInfoCount | packet.otherIDCount != 0 { answerRest(of: packet, status, &nextID) }
  }

  private mutating func answerRest(of packet: Packet, _ status: Int16, _ nextID: inout Int) {
    for _ in 0..<packet.extraInfoCount { ring.put(NetIfTxResponse(id: 0, status: NetIf.Status.null)) }
    for _ in 0..<packet.otherIDCount {
      ring.put(NetIfTxResponse(id: otherIDs[nextID], status: status))
      nextID += 1
    }
  }

  /// A frame whose checksum is blank: what the end does not take so is filled in, and what it takes is what it is said to be.
  ///
  /// - Returns: false when that is not so, which is counted; then it goes nowhere.
  @inline(__always) private mutating func finish(_ frame: NetworkFrame, _ metadata: inout NetPacketMetadata) -> Bool {
    if metadata.segmentation == nil, offloads.contains(.ipv4Checksum), frame.hasPlainHeaders { return true }
    return finishAny(frame, &metadata)
  }

  private mutating func finishAny(_ frame: NetworkFrame, _ metadata: inout NetPacketMetadata) -> Bool {
    do throws(NetHeaderFault) {
      if let segmentation = metadata.segmentation {
        // Only such have passed the assembly as are taken.
        if try frame.suits(segmentation.kind) { return true }
        countRefused(for: .otherPacket(segmentation.kind))
        return false
      }
      if try frame.fillChecksum(unlessTaken: offloads) {
        metadata.checksum = .validated
        checksumsFilled &+= 1
      }
      return true
    } catch {
      countRefused(for: .checksum(error))
      return false
    }
  }

  private mutating func runCopies() {
    let grants = grants
    copies.withMutableSpan { grants.copy(&$0) }
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// When there is credit again; nil while there is some, or no limit.
  var creditComes: Uptime? { credit.flatMap(\.comes) }

  /// Whether there are slots, and credit for them.
  var hasWork: Bool { credit?.isUsedUp != true && ring.hasUnconsumed() }

  /// Looks for the last time before sleeping, and asks for an event at the next slot. Without credit slots are no news.
  mutating func hasMore() throws(DeviceError) -> Bool {
    guard credit?.isUsedUp != true else { return false }
    do throws(RingViolation) { return try ring.finalCheck() } catch {
      throw .protocolViolation("\(NetRingViolation(.tx, error))")
    }
  }
}
