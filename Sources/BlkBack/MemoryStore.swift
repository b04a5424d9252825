import BlkIf
import Synchronization

/// A disk in this process's memory, zeroed at the start, lost at the end.
public final class MemoryStore: BlockStore {
  public let geometry: BlockGeometry
  private let pages: PrivatePages

  /// - Parameter sectorCount: in 512-byte sectors; positive.
  public convenience init(sectorCount: UInt64) { self.init(geometry: BlockGeometry(sectorCount: sectorCount)) }

  public init(geometry: BlockGeometry) {
    self.geometry = geometry
    let perPage = UInt64(BlkIf.sectorsPerPage)
    pages = PrivatePages(pageCount: Int((geometry.sectorCount + perPage - 1) / perPage))
  }

  public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let request = requests[index]
      let place = pages.bytes.slice(from: Int(request.offset), count: request.payload.byteCount)
      switch request.kind {
      case .read: request.payload.copy(from: place)
      case .write, .writeBarrier: request.payload.copy(to: place)
      case .flush, .discard, .secureDiscard: break
      }
      completions.complete(request)
    }
  }
}
