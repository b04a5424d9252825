import NetIf

/// Pages shared with the backend in which frames travel, numbered from 0; as many as could be had.
struct NetFrontPages: ~Copyable {
  /// What was shared in one call; it stays shared as long as we do.
  private final class Run {
    let pages: GrantedPages
    init(_ pages: consuming GrantedPages) { self.pages = pages }
  }

  struct Page: BitwiseCopyable {
    let bytes: SharedBytes
    let reference: GrantReference
  }

  private var runs: [Run] = []
  private var pages: PlainArray<Page>

  /// - Parameter capacity: how many pages there may be at most.
  init(_ pages: consuming GrantedPages, capacity: Int) {
    self.pages = PlainArray(capacity: capacity)
    add(pages)
  }

  var count: Int { pages.count }

  /// What names them to the backend.
  var references: [GrantReference] { (0..<pages.count).map { pages[$0].reference } }

  subscript(page: UInt16) -> Page { pages[Int(page)] }

  mutating func add(_ run: consuming GrantedPages) {
    for (page, reference) in run.references.enumerated() {
      pages.append(Page(bytes: run.bytes.slice(from: page * xenPageSize, count: xenPageSize), reference: reference))
    }
    runs.append(Run(run))
  }
}
