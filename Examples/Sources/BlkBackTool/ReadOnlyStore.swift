import BlkBack

/// A disk that may only be read, upon a store that could be written: its backend refuses what would change it, and says so.
final class ReadOnlyStore: BlockStore {
  private let store: any BlockStore

  init(_ store: any BlockStore) { self.store = store }

  var geometry: BlockGeometry {
    var geometry = store.geometry
    (geometry.isReadOnly, geometry.discard) = (true, nil)
    return geometry
  }

  var completionDescriptor: CInt? { store.completionDescriptor }

  func makeQueue() throws(ResourceError) -> any BlockStore { ReadOnlyStore(try store.makeQueue()) }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let kind = requests[index].kind
      precondition(kind == .read || kind == .flush, "writes do not pass the backend's gate")
    }
    store.submit(requests, to: &completions)
  }

  func reap(into completions: inout StoreCompletions) { store.reap(into: &completions) }
  func abandon() { store.abandon() }
}
