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
    /// One for each fragment, and one for each that has bytes.
    let idCount: Int
    let copyCount: Int
  }

  private var ring: BackRing<NetIfTxRequest, NetIfTxResponse>
  private let grants: any GrantTable
  private let frontend: DomainID
  private var assembly: NetTxAssembly
  /// A page for each slot of a batch, and as much as a packet may have in slots of the batches before.
  private let buffer = PrivatePages(pageCount: batchCount + NetIf.maxFragmentCount)
  private var bufferByteCount = 0
  /// Of the batch under way, in the guest's order; emptied, never shrunk.
  private var packets: [Packet] = []
  private var ids: [UInt16] = []
  private var copies: [GrantCopy] = []
  private var frames: [NetworkFrame] = []
  private(set) var counts = NetCounts()

  init(
    ring: consuming BackRing<NetIfTxRequest, NetIfTxResponse>, grants: any GrantTable, frontend: DomainID,
    scatterGather: Bool
  ) {
    self.ring = ring
    self.grants = grants
    self.frontend = frontend
    assembly = NetTxAssembly(scatterGather: scatterGather)
    let slotCount = Self.batchCount + NetIf.maxFragmentCount
    packets.reserveCapacity(Self.batchCount)
    frames.reserveCapacity(Self.batchCount)
    ids.reserveCapacity(slotCount)
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
        case .refused: refuse()
        }
      } catch { throw .protocolViolation("\(error)") }
    }
    return taken
  }

  private mutating func addPacket() {
    let copied = copies.count
    var end = bufferByteCount
    for index in 0..<assembly.fragmentCount {
      let fragment = assembly[index]
      ids.append(fragment.id)
      let byteCount = Int(fragment.byteCount)
      // A fragment without bytes is answered as the others are.
      guard byteCount > 0 else { continue }
      copies.append(
        GrantCopy(
          .fromGrant, local: buffer.bytes.slice(from: end, count: byteCount), reference: fragment.reference,
          of: frontend, offset: fragment.offset))
      end += byteCount
    }
    packets.append(
      Packet(
        offset: bufferByteCount, byteCount: end - bufferByteCount, idCount: assembly.fragmentCount,
        copyCount: copies.count - copied))
    // The next one begins at a cache line; a page holds whole ones.
    bufferByteCount = (end + 63) & ~63
  }

  /// All slots of the packet that the assembly holds are answered with an error, but for its extra infos.
  private mutating func refuse() {
    counts.errors &+= 1
    for index in 0..<assembly.fragmentCount { answer(assembly[index].id, NetIf.Status.error) }
    for _ in 0..<assembly.extraInfoCount { answer(0, NetIf.Status.null) }
  }

  private mutating func answer(_ id: UInt16, _ status: Int16) { ring.put(NetIfTxResponse(id: id, status: status)) }

  /// The batch's bytes are copied in, its slots answered, and its frames handed to the end.
  mutating func deliver(to end: any NetworkEnd, answering guest: inout FrameQueue) {
    guard !packets.isEmpty else { return }
    runCopies()
    var (firstID, firstCopy) = (0, 0)
    for packet in packets {
      var succeeded = true
      for index in firstCopy..<firstCopy + packet.copyCount where copies[index].status != .okay { succeeded = false }
      // From here on the frame is ours, whatever becomes of it.
      for index in firstID..<firstID + packet.idCount {
        answer(ids[index], succeeded ? NetIf.Status.okay : NetIf.Status.error)
      }
      firstID += packet.idCount
      firstCopy += packet.copyCount
      if succeeded {
        counts.count(packetOf: packet.byteCount)
        frames.append(NetworkFrame(buffer.bytes.slice(from: packet.offset, count: packet.byteCount)))
      } else {
        counts.errors &+= 1
      }
    }
    packets.removeAll(keepingCapacity: true)
    ids.removeAll(keepingCapacity: true)
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
