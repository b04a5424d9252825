import BlkBack
import Glibc
import Synchronization
import SystemPackage

/// A disk that begins as a base, which is only ever read, and keeps what is written in a file of its own: copy on write.
///
/// The overlay file is sparse and as long as the base. It survives its process being killed with every write that was
/// acknowledged, and a power cut with every write that was acknowledged before a flush that completed; a sector never shows
/// anything but what was in it or written to it. What is discarded, in whole clusters, reads as zeros. An overlay goes with the
/// base that it was made for, as that was then, and with no other; both are locked, the base against writers.
///
/// It makes a system call for each piece of a request, through the page cache, and has one lock for all of its queues while
/// clusters are taken over from the base.
public final class OverlayStore: BlockStore {
  public let geometry: BlockGeometry
  private let base: any OverlayMedium
  private let file: any OverlayMedium
  private let layout: OverlayLayout
  private let state: Mutex<State>
  /// Held by the flush under way; true once one has failed, for good: the kernel forgets what it could not write.
  private let hasLostWrites = Mutex(false)

  private struct State {
    var map: OverlayMap
    /// Of the map's blocks: not in the durable map yet.
    var isDirty: [Bool]
    /// A cluster that is being put together.
    let cluster: PrivatePages
  }

  /// - Parameters:
  ///   - base: a raw image or a block device.
  ///   - overlay: made when there is no such file.
  ///   - clusterByteCount: the unit in which a new overlay takes over what is in the base: a power of two from 4096 to 2 MiB.
  ///   - lockSeconds: how long to wait for whoever has either file locked.
  public convenience init(
    base: FilePath, overlay: FilePath, clusterByteCount: Int = 65_536, lockSeconds: Double = 3
  ) throws(OverlayStoreError) {
    let (baseFile, file): (FileMedium, FileMedium)
    do throws(FileStoreError) {
      baseFile = try FileMedium(path: base, isBase: true, lockSeconds: lockSeconds)
      file = try FileMedium(path: overlay, isBase: false, lockSeconds: lockSeconds)
    } catch { throw .file(error) }
    let (identity, boot) = try said(overlay) { () throws(FileFault) in
      try file.flushFolder()
      return (try baseFile.identity(), try Self.bootIdentity())
    }
    try self.init(base: baseFile, identity: identity, file: file, boot: boot, clusterByteCount: clusterByteCount)
  }

  /// - Parameter boot: what tells this boot of the machine from others.
  init(
    base: any OverlayMedium, identity: OverlayBase, file: any OverlayMedium, boot: String, clusterByteCount: Int
  ) throws(OverlayStoreError) {
    guard identity.byteCount > 0 else { throw .file(.empty(base.path)) }
    guard identity.byteCount % UInt64(BlkIf.sectorByteCount) == 0 else {
      throw .file(.notWholeSectors(base.path, byteCount: Int64(clamping: identity.byteCount)))
    }
    (self.base, self.file) = (base, file)
    layout = try Self.layout(of: file, base.path, identity, clusterByteCount)
    let (map, isDirty) = try Self.map(in: file, layout, boot)
    geometry = BlockGeometry(
      sectorCount: layout.diskByteCount / 512, discard: DiscardLimits(granularity: UInt32(layout.clusterByteCount)))
    state = Mutex(
      State(map: map, isDirty: isDirty, cluster: PrivatePages(pageCount: layout.clusterByteCount / xenPageSize)))
  }

  /// For whoever opens the file next, on this machine or another.
  deinit { try? flush() }

  // MARK: Opening

  /// Makes the file an overlay, or finds that it is the right one.
  private static func layout(
    of file: any OverlayMedium, _ basePath: FilePath, _ base: OverlayBase, _ clusterByteCount: Int
  ) throws(OverlayStoreError) -> OverlayLayout {
    let byteCount = try said(file.path) { () throws(FileFault) in try file.byteCount() }
    guard byteCount == 0 || byteCount >= UInt64(OverlayLayout.headerByteCount) else { throw .notAnOverlay(file.path) }
    let found =
      byteCount == 0
      ? []
      : try said(file.path) { () throws(FileFault) in
        try file.read(at: 0, byteCount: OverlayLayout.headerByteCount)
      }
    // One whose making was cut short has no header, the first thing that is written to it. Others may begin with zeros, too.
    if found.allSatisfy({ $0 == 0 }), try said(file.path, { () throws(FileFault) in try file.hasNoData() }) {
      return try make(file, base, clusterByteCount)
    }
    let header: OverlayHeader
    do throws(OverlayHeader.Fault) { header = try OverlayHeader(from: found) } catch {
      switch error {
      case .notAnOverlay: throw .notAnOverlay(file.path)
      case .version(let version): throw .version(file.path, version)
      case .damaged(let how): throw .damaged(file.path, how)
      }
    }
    guard header.base == base else { throw .otherBase(file.path, base: basePath) }
    guard let layout = OverlayLayout(diskByteCount: base.byteCount, clusterByteCount: 1 << header.clusterShift) else {
      throw .damaged(file.path, "no file can be as long as it would be")
    }
    guard byteCount >= layout.fileByteCount else { throw .damaged(file.path, "it has been cut short") }
    return layout
  }

  private static func make(
    _ file: any OverlayMedium, _ base: OverlayBase, _ clusterByteCount: Int
  ) throws(OverlayStoreError) -> OverlayLayout {
    let shift = UInt32(clusterByteCount.trailingZeroBitCount)
    precondition(
      clusterByteCount.nonzeroBitCount == 1 && OverlayHeader.clusterShifts.contains(shift),
      "a cluster of a fitting size")
    guard let layout = OverlayLayout(diskByteCount: base.byteCount, clusterByteCount: clusterByteCount) else {
      throw .damaged(file.path, "no file can be as long as it would be")
    }
    try said(file.path) { () throws(FileFault) in
      try file.extend(to: layout.fileByteCount)
      try file.flush()
      try file.write(OverlayHeader(clusterShift: shift, base: base).bytes, at: 0)
      try file.flush()
    }
    return layout
  }

  /// The live map when it was written during this boot; the durable one otherwise, which is then the live one as well.
  private static func map(
    in file: any OverlayMedium, _ layout: OverlayLayout, _ boot: String
  ) throws(OverlayStoreError) -> (OverlayMap, isDirty: [Bool]) {
    let record = bootRecord(boot)
    let (found, durable) = try said(file.path) { () throws(FileFault) in
      (
        try file.read(at: OverlayLayout.bootOffset, byteCount: record.count),
        try file.read(at: layout.durableMapOffset, byteCount: layout.mapByteCount)
      )
    }
    var isDirty = [Bool](repeating: false, count: layout.mapByteCount / OverlayLayout.mapBlockByteCount)
    var chosen = durable
    if found == record {
      chosen = try said(file.path) { () throws(FileFault) in
        try file.read(at: OverlayLayout.liveMapOffset, byteCount: layout.mapByteCount)
      }
      for block in isDirty.indices {
        let range = OverlayLayout.mapBlock(block)
        isDirty[block] = chosen[range] != durable[range]
      }
    }
    guard let map = OverlayMap(chosen) else { throw .damaged(file.path, "its map has clusters of an unknown kind") }
    if found != record {
      // The record last: a process that is killed in between leaves none that is valid.
      try said(file.path) { () throws(FileFault) in
        try file.write(durable, at: OverlayLayout.liveMapOffset)
        try file.write(record, at: OverlayLayout.bootOffset)
      }
    }
    return (map, isDirty)
  }

  private static func bootIdentity() throws(FileFault) -> String {
    guard let bytes = smallFile("/proc/sys/kernel/random/boot_id"), bytes.count >= 36 else { throw .system(.ioError) }
    return String(decoding: bytes.prefix(36), as: UTF8.self)
  }

  // MARK: Requests

  public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let request = requests[index]
      do throws(FileFault) {
        switch request.kind {
        case .read: try read(request)
        case .write: try write(request)
        case .writeBarrier:
          try flush()
          if request.sectorCount > 0 {
            try write(request)
            try flush()
          }
        case .flush: try flush()
        case .discard, .secureDiscard: try discard(request)
        }
        completions.complete(request)
      } catch { completions.fail(request, because: error.words(file.path)) }
    }
  }

  /// A part of a request that lies in one cluster and in one slice of memory.
  private struct Part {
    let cluster: Int
    /// In bytes from the disk's start.
    let offset: UInt64
    let bytes: SharedBytes
  }

  /// The part that begins `done` bytes behind the request's start.
  private func part(of request: StoreRequest, after done: Int) -> Part {
    let offset = request.offset + UInt64(done)
    let piece = request.payload.piece(after: done)
    let cluster = UInt64(layout.clusterByteCount)
    let count = min(piece.count, Int(cluster - offset % cluster))
    return Part(cluster: Int(offset / cluster), offset: offset, bytes: piece.slice(from: 0, count: count))
  }

  private func read(_ request: StoreRequest) throws(FileFault) {
    var done = 0
    while done < request.payload.byteCount {
      let part = part(of: request, after: done)
      switch state.withLock({ $0.map[part.cluster] }) {
      case .base: try readBase(part.bytes, at: part.offset)
      case .data: try file.read(part.bytes, at: layout.dataOffset + part.offset)
      case .zero: part.bytes.zero()
      }
      done += part.bytes.count
    }
  }

  private func write(_ request: StoreRequest) throws(FileFault) {
    var done = 0
    while done < request.payload.byteCount {
      let part = part(of: request, after: done)
      if state.withLock({ $0.map[part.cluster] }) == .data {
        try file.write(part.bytes, at: layout.dataOffset + part.offset)
        done += part.bytes.count
      } else {
        done += try takeOver(part.cluster, request, from: done)
      }
    }
  }

  /// Writes a cluster that is not in the overlay as a whole, with what of the request falls into it, and then says so.
  ///
  /// - Returns: how many bytes of the request did.
  private func takeOver(_ cluster: Int, _ request: StoreRequest, from done: Int) throws(FileFault) -> Int {
    let start = UInt64(cluster) * UInt64(layout.clusterByteCount)
    let length = Int(min(UInt64(layout.clusterByteCount), layout.diskByteCount - start))
    let skip = Int(request.offset + UInt64(done) - start)
    let count = min(length - skip, request.payload.byteCount - done)
    try state.withLock { (state) throws(FileFault) in
      let whole = state.cluster.bytes.slice(from: 0, count: length)
      let own = whole.slice(from: skip, count: count)
      switch state.map[cluster] {
      case .base: if count < length { try readBase(whole, at: start) }
      case .zero: whole.zero()
      // Another queue was faster.
      case .data:
        request.payload.copy(from: done, to: own)
        return try file.write(own, at: layout.dataOffset + start + UInt64(skip))
      }
      request.payload.copy(from: done, to: own)
      try file.write(whole, at: layout.dataOffset + start)
      try set(cluster..<cluster + 1, .data, in: &state)
    }
    return count
  }

  /// Whole clusters become zeros; what of others is discarded stays as it is.
  private func discard(_ request: StoreRequest) throws(FileFault) {
    let cluster = UInt64(layout.clusterByteCount)
    let end = request.offset + request.sectorCount * 512
    let first = Int((request.offset + cluster - 1) / cluster)
    let last = end == layout.diskByteCount ? layout.clusterCount : Int(end / cluster)
    guard first < last else { return }
    try state.withLock { (state) throws(FileFault) in
      try set(first..<last, .zero, in: &state)
      // After the map, and before anybody writes there again.
      file.discard(
        at: layout.dataOffset + UInt64(first) * cluster,
        byteCount: min(UInt64(last) * cluster, end) - UInt64(first) * cluster)
    }
  }

  private func readBase(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault) {
    do throws(FileFault) { try base.read(bytes, at: offset) } catch { throw .of(base.path, error) }
  }

  /// Gives clusters a state, in the live map first.
  private func set(_ clusters: Range<Int>, _ value: ClusterState, in state: inout State) throws(FileFault) {
    let range = clusters.lowerBound / 4..<(clusters.upperBound + 3) / 4
    let former = Array(state.map.bytes[range])
    for cluster in clusters { state.map[cluster] = value }
    do throws(FileFault) {
      try file.write(Array(state.map.bytes[range]), at: OverlayLayout.liveMapOffset + UInt64(range.lowerBound))
    } catch {
      state.map.replace(range, with: former)
      throw error
    }
    let size = OverlayLayout.mapBlockByteCount
    for block in range.lowerBound / size...(range.upperBound - 1) / size { state.isDirty[block] = true }
  }

  /// Data first, then the map that speaks of it: what the map says at the beginning is written before anything is flushed.
  private func flush() throws(FileFault) {
    // One at a time, so that none completes while another still has its clusters in hand.
    try hasLostWrites.withLock { (hasLostWrites) throws(FileFault) in
      guard !hasLostWrites else { throw .lostWrites }
      let blocks = state.withLock { state in
        let dirty = state.isDirty.indices.filter { state.isDirty[$0] }
        for block in dirty { state.isDirty[block] = false }
        return dirty.map { ($0, Array(state.map.bytes[OverlayLayout.mapBlock($0)])) }
      }
      do throws(FileFault) {
        try file.flush()
        if blocks.isEmpty { return }
        for (block, bytes) in blocks {
          try file.write(bytes, at: layout.durableMapOffset + UInt64(block * OverlayLayout.mapBlockByteCount))
        }
        try file.flush()
      } catch {
        hasLostWrites = true
        throw error
      }
    }
  }
}

/// Says what is wrong with which file.
private func said<Value>(
  _ path: FilePath, _ body: () throws(FileFault) -> Value
) throws(OverlayStoreError) -> Value {
  do throws(FileFault) { return try body() } catch {
    switch error {
    case .system(let error): throw .system(path, error)
    case .endOfFile, .lostWrites, .of: throw .damaged(path, "it has been cut short")
    }
  }
}

/// Why there is no disk of a base and an overlay.
@nonexhaustive public enum OverlayStoreError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Of either file.
  case file(FileStoreError)
  case system(FilePath, Errno)
  case notAnOverlay(FilePath)
  case version(FilePath, UInt32)
  case damaged(FilePath, String)
  case otherBase(FilePath, base: FilePath)

  public var description: String {
    switch self {
    case .file(let error): error.description
    case .system(let path, let error): "the overlay \(path): \(error)"
    case .notAnOverlay(let path): "the file \(path) is no overlay, and is not empty: give another one, or remove it"
    case .version(let path, let version):
      "the overlay \(path) is of version \(version), which this program does not know"
    case .damaged(let path, let how): "the overlay \(path) is damaged: \(how)"
    case .otherBase(let path, let base):
      "the overlay \(path) was not made for \(base), or \(base) has been changed since: what it holds fits nothing else"
    }
  }
}
