import NetIf
import XenRing

/// What the guest sends: the transmit ring, and memory for the packets of a batch.
///
/// A packet's way: slots, a validated packet, its bytes copied in, responses, the end. Each step is done for a whole batch,
/// so that the platform is called once for it.
struct NetBackTransmit: ~Copyable {
  /// How many slots one batch takes at most.
  static let batchCount = 64

  private struct Packet: BitwiseCopyable {
    /// Where its bytes lie, in one piece.
    let offset: Int
    let byteCount: Int
    /// Its first slot's; the others' are in `ids`, one for each further fragment.
    let id: UInt16
    let otherIDCount: Int
    /// One for each fragment that has bytes.
    let copyCount: Int
    /// Whether the end would see a frame without its checksum.
    let isChecksumBlank: Bool
  }

  private var ring: BackRing<NetIfTxRequest, NetIfTxResponse>
  private let grants: any GrantTable
  private let frontend: DomainID
  private var assembly: NetTxAssembly
  /// A page for each slot of a batch, and as much as a packet may have in slots of the batches before.
  private let pages = PrivatePages(pageCount: batchCount + NetIf.maxFragmentCount)
  private let buffer: SharedBytes
  private var bufferByteCount = 0
  /// Of the batch under way, in the guest's order; emptied, never shrunk.
  private var packets: [Packet] = []
  private var otherIDs: [UInt16] = []
  private var copies: [GrantCopy] = []
  private var frames: [NetworkFrame] = []
  private(set) var counts = NetCounts()
  private(set) var checksumsFilled: UInt64 = 0
  private let refusal: FirstFault<NetTxPacketFault>

  init(
    ring: consuming BackRing<NetIfTxRequest, NetIfTxResponse>, grants: any GrantTable, frontend: DomainID,
    scatterGather: Bool, refusal: FirstFault<NetTxPacketFault>
  ) {
    self.ring = ring
    self.grants = grants
    self.frontend = frontend
    self.refusal = refusal
    assembly = NetTxAssembly(scatterGather: scatterGather)
    buffer = pages.bytes
    let slotCount = Self.batchCount + NetIf.maxFragmentCount
    packets.reserveCapacity(Self.batchCount)
    frames.reserveCapacity(Self.batchCount)
    otherIDs.reserveCapacity(slotCount)
    copies.reserveCapacity(slotCount)
  }

  var ringStatistics: RingStatistics { ring.statistics }
  var ringDump: String { ring.dump() }

  /// Slots to validated packets and their copies; what does not pass is answered at once. A packet whose slots have not
  /// all arrived waits for the rest.
  ///
  /// - Parameter limit: of slots, at most ``batchCount``.
  /// - Returns: how many slots there were.
  mutating func take(limit: Int) throws(DeviceError) -> Int {
    do throws(RingViolation) { _ = try ring.available() } catch {
      throw .protocolViolation("\(NetRingViolation(.tx, error))")
    }
    var taken = 0
    while taken < limit, let raw = ring.next() {
      taken += 1
      do throws(NetTxViolation) {
        switch try assembly.take(raw) {
        case .incomplete: break
        case .packet: addPacket()
        case .refused(let fault): refuse(fault)
        }
      } catch { throw .protocolViolation("\(error)") }
    }
    return taken
  }

  private mutating func addPacket() {
    let copied = copies.count
    var end = bufferByteCount
    addCopy(of: assembly.first, to: &end)
    if assembly.fragmentCount > 1 {
      for fragment in assembly.others {
        otherIDs.append(fragment.id)
        addCopy(of: fragment, to: &end)
      }
    }
    packets.append(
      Packet(
        offset: bufferByteCount, byteCount: end - bufferByteCount, id: assembly.first.id,
        otherIDCount: assembly.fragmentCount - 1, copyCount: copies.count - copied,
        isChecksumBlank: assembly.isChecksumBlank))
    // The next one begins at a cache line; a page holds whole ones.
    bufferByteCount = (end + 63) & ~63
  }

  /// A fragment without bytes needs none, and is answered as the others are.
  private mutating func addCopy(of fragment: NetTxFragment, to end: inout Int) {
    let byteCount = Int(fragment.byteCount)
    guard byteCount > 0 else { return }
    copies.append(
      GrantCopy(
        .fromGrant, local: buffer.slice(from: end, count: byteCount), reference: fragment.reference, of: frontend,
        offset: fragment.offset))
    end += byteCount
  }

  /// All slots of the packet that the assembly holds are answered with an error, but for its extra infos.
  private mutating func refuse(_ fault: NetTxPacketFault) {
    countRefused(for: fault)
    answer(assembly.first.id, NetIf.Status.error)
    if assembly.fragmentCount > 1 { for fragment in assembly.others { answer(fragment.id, NetIf.Status.error) } }
    for _ in 0..<assembly.extraInfoCount { answer(0, NetIf.Status.null) }
  }

  private mutating func countRefused(for fault: NetTxPacketFault) {
    counts.errors &+= 1
    refusal.tell(fault)
  }

  private mutating func answer(_ id: UInt16, _ status: Int16) { ring.put(NetIfTxResponse(id: id, status: status)) }

  /// The batch's bytes are copied in, its slots answered, and its frames handed to the end.
  mutating func deliver(to end: any NetworkEnd, answering guest: inout FrameQueue) {
    guard !packets.isEmpty else { return }
    runCopies()
    let okay = GrantStatus.okay
    var (nextID, nextCopy) = (0, 0)
    for packet in packets {
      var fault: NetTxPacketFault?
      for _ in 0..<packet.copyCount {
        let status = copies[nextCopy].status
        if status != okay { fault = fault ?? .unreadable(copies[nextCopy].reference, status) }
        nextCopy += 1
      }
      if packet.isChecksumBlank, fault == nil { fault = fillChecksum(of: packet) }
      // From here on the frame is ours, whatever becomes of it.
      let status = fault == nil ? NetIf.Status.okay : NetIf.Status.error
      answer(packet.id, status)
      for _ in 0..<packet.otherIDCount {
        answer(otherIDs[nextID], status)
        nextID += 1
      }
      if let fault {
        countRefused(for: fault)
      } else {
        counts.count(packetOf: packet.byteCount)
        frames.append(NetworkFrame(buffer.slice(from: packet.offset, count: packet.byteCount)))
      }
    }
    packets.removeAll(keepingCapacity: true)
    if !otherIDs.isEmpty { otherIDs.removeAll(keepingCapacity: true) }
    copies.removeAll(keepingCapacity: true)
    bufferByteCount = 0
    guard !frames.isEmpty else { return }
    // Lent to the end as a local, since a span of a part of us would lock all of us.
    var batch: [NetworkFrame] = []
    swap(&batch, &frames)
    end.take(batch.span, answering: &guest)
    batch.removeAll(keepingCapacity: true)
    swap(&batch, &frames)
  }

  /// - Returns: why it has none.
  private mutating func fillChecksum(of packet: Packet) -> NetTxPacketFault? {
    let bytes = buffer.slice(from: packet.offset, count: packet.byteCount)
    let start = unsafe bytes.baseAddress.assumingMemoryBound(to: UInt8.self)
    // Safe: these are bytes of our own pages, no peer can change them, and the end has not seen them yet.
    var frame = unsafe MutableSpan(_unsafeStart: start, count: bytes.count)
    do throws(NetHeaderFault) {
      try NetHeaders(parsing: frame.span).fillChecksum(in: &frame)
      checksumsFilled &+= 1
      return nil
    } catch { return .checksum(error) }
  }

  private mutating func runCopies() {
    let grants = grants
    var span = copies.mutableSpan
    grants.copy(&span)
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Looks for the last time before sleeping, and asks for an event at the next slot.
  mutating func hasMore() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch {
      throw .protocolViolation("\(NetRingViolation(.tx, error))")
    }
  }
}
