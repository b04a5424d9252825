import Synchronization
import XenPlatform

/// Every domain's grant table, and who uses which pages behind it.
///
/// Not copyable, so that who only looks at it does not retain all that it holds.
struct GrantSpace: ~Copyable {
  /// What a domain can use of the kernel's pages and references for sharing.
  private struct Table {
    /// By reference. None is given out twice, so that a stale one is noticed, and 0 to 7 are Xen's own: so this grows by sixteen
    /// bytes for each page that is ever shared.
    var grants = [Grant](repeating: .none, count: 8)
    var sharedPages = 0
    /// As xen-gntalloc's parameter has it where nobody sets it.
    var sharedPageLimit = 1024
  }

  /// What a reference names: all that a copy needs to know, so that it looks no further.
  @safe private struct Grant {
    static var none: Grant { unsafe Grant(page: nil, run: -1, grantee: DomainID(rawValue: 0), isWritable: false) }

    /// Where the owner has it; nil for none.
    let page: UnsafeMutableRawPointer?
    let run: Int32
    let grantee: DomainID
    var isWritable: Bool
  }

  /// One `share`.
  private struct Run {
    let file: PageFile
    let owner: DomainID
    let references: Range<UInt32>
    var mappedPages = 0
    var isShared = true
    /// Its process was killed.
    var isOrphaned = false
  }

  private struct Page {
    let run: Int
    let number: Int
  }

  /// A region that somebody was given.
  private struct Region {
    enum Use {
      case shares(run: Int)
      case maps([Page])
      /// Nothing any more, since its process was killed: only memory is left.
      case nothing
    }

    let memory: PageMapping
    let process: LoopbackProcess
    var use: Use
  }

  /// By the domain's number; nil for one that has been destroyed.
  private var tables: [Table?] = []
  /// By number; nil for one that is not used any more, whose number is given out again.
  private var runs: [Run?] = []
  private var freeRuns: [Int] = []
  /// By address.
  private var regions: [UInt: Region] = [:]
  private var random: SplitMix64
  private var counted = GrantCounts()
  /// Segments copied since the start: apart, since copies only look at the rest.
  private let copyTotal = CopyTotal()
  var faults = GrantFaults()

  private final class CopyTotal: Sendable { let count = Atomic<Int>(0) }

  var counts: GrantCounts {
    var counts = counted
    counts.copyTotal = copyTotal.count.load(ordering: .relaxed)
    return counts
  }

  init(seed: UInt64) { random = SplitMix64(state: seed) }

  // MARK: Domains

  mutating func introduce(_ domain: DomainID) {
    while tables.count <= Int(domain.rawValue) { tables.append(nil) }
    tables[Int(domain.rawValue)] = Table()
  }

  /// Its processes have been ended before.
  mutating func destroy(_ domain: DomainID) { withTable(of: domain) { $0 = nil } }

  func sharedPageLimit(of domain: DomainID) -> Int { table(of: domain)?.sharedPageLimit ?? 0 }

  mutating func setSharedPageLimit(of domain: DomainID, to limit: Int) {
    withTable(of: domain) { $0?.sharedPageLimit = limit }
  }

  private func table(of domain: DomainID) -> Table? {
    Int(domain.rawValue) < tables.count ? tables[Int(domain.rawValue)] : nil
  }

  /// Does nothing where there never was such a domain.
  private mutating func withTable(of domain: DomainID, _ body: (inout Table?) -> Void) {
    if Int(domain.rawValue) < tables.count { body(&tables[Int(domain.rawValue)]) }
  }

  // MARK: Sharing and mapping

  mutating func share(
    pageCount: Int, by process: LoopbackProcess, with grantee: DomainID, writable: Bool
  ) throws(GrantError) -> (memory: PageMapping, references: [GrantReference]) {
    guard !process.isKilled, let table = table(of: process.domain) else {
      throw .system(call: "share", reason: LoopbackProcess.wasKilled)
    }
    guard pageCount <= table.sharedPageLimit - table.sharedPages, !faults.failedShare.strikes(&random) else {
      throw .gntallocLimit(pageCount: pageCount)
    }
    let file = try PageFile(pageCount: pageCount)
    let memory: PageMapping
    do throws(GrantError) {
      memory = try PageMapping((0..<pageCount).map { PageMapping.Page(file: file, number: $0) }, writable: true)
    } catch {
      file.close()
      throw error
    }
    let first = UInt32(table.grants.count)
    let references = first..<(first + UInt32(pageCount))
    let number = addRun(Run(file: file, owner: process.domain, references: references))
    withTable(of: process.domain) {
      for page in 0..<pageCount {
        $0?.grants.append(
          unsafe Grant(
            page: memory.baseAddress + page * xenPageSize, run: Int32(number), grantee: grantee, isWritable: writable))
      }
      $0?.sharedPages += pageCount
    }
    unsafe regions[UInt(bitPattern: memory.baseAddress)] = Region(
      memory: memory, process: process, use: .shares(run: number))
    counted.sharedPages += pageCount
    return (memory, references.map(GrantReference.init(rawValue:)))
  }

  mutating func setWritable(_ writable: Bool, _ reference: GrantReference, of domain: DomainID) {
    withTable(of: domain) {
      let place = Int(reference.rawValue)
      precondition(place < $0?.grants.count ?? 0, "a reference that the domain has granted")
      $0?.grants[place].isWritable = writable
    }
  }

  private mutating func addRun(_ run: Run) -> Int {
    if let number = freeRuns.popLast() {
      runs[number] = run
      return number
    }
    runs.append(run)
    return runs.count - 1
  }

  mutating func map(
    _ references: [GrantReference], of domain: DomainID, by process: LoopbackProcess, writable: Bool
  ) throws(GrantError) -> PageMapping {
    precondition(!references.isEmpty, "at least one reference")
    if process.isKilled { throw .system(call: "map", reason: LoopbackProcess.wasKilled) }
    var pages: [Page] = []
    for reference in references {
      let found = find(reference, of: domain, for: process.domain, writable: writable)
      guard found.status == .okay, let run = runs[Int(found.grant.run)] else {
        throw .refused(reference, of: domain, found.status)
      }
      pages.append(Page(run: Int(found.grant.run), number: Int(reference.rawValue - run.references.lowerBound)))
    }
    if faults.failedMap.strikes(&random), let unlucky = references.randomElement(using: &random) {
      throw .refused(unlucky, of: domain, .generalError)
    }
    let memory = try PageMapping(located(pages), writable: writable)
    for page in pages { runs[page.run]?.mappedPages += 1 }
    unsafe regions[UInt(bitPattern: memory.baseAddress)] = Region(memory: memory, process: process, use: .maps(pages))
    counted.mappedPages += pages.count
    counted.mapTotal += pages.count
    return memory
  }

  /// What `domain` granted to `grantee` under `reference`, if it did, and for this use: then the status is okay. Xen's word for
  /// most refusals is just an error; it tells only of references that lie outside the table, which grows by pages of 512
  /// entries.
  private func find(
    _ reference: GrantReference, of domain: DomainID, for grantee: DomainID, writable: Bool
  ) -> (status: GrantStatus, grant: Grant) {
    let place = Int(reference.rawValue)
    guard Int(domain.rawValue) < tables.count, let count = tables[Int(domain.rawValue)]?.grants.count else {
      return (.badDomain, .none)
    }
    guard place < count else { return (place / 512 <= (count - 1) / 512 ? .generalError : .badReference, .none) }
    guard let grant = tables[Int(domain.rawValue)]?.grants[place], unsafe grant.page != nil, grant.grantee == grantee,
      grant.isWritable || !writable
    else { return (.generalError, .none) }
    return (.okay, grant)
  }

  /// Pages that are shared, or still mapped: their runs are there.
  private func located(_ pages: [Page]) -> [PageMapping.Page] {
    var list: [PageMapping.Page] = []
    for page in pages { list.append(PageMapping.Page(file: runs[page.run]!.file, number: page.number)) }
    return list
  }

  // MARK: Ends

  mutating func endRegion(at address: UInt) {
    guard let region = regions.removeValue(forKey: address) else { preconditionFailure("a region ends once") }
    end(region.use)
    region.memory.unmap()
  }

  /// Takes away what `process` shares and maps. Its address space stays as it is until its regions end, since it may have
  /// pointers there; what it writes reaches nobody.
  mutating func end(_ process: LoopbackProcess) {
    let own = regions.filter { $0.value.process === process }
    for (address, region) in own {
      switch region.use {
      case .shares(let run):
        region.memory.detach(located((0..<region.memory.pageCount).map { Page(run: run, number: $0) }))
        runs[run]?.isOrphaned = true
      case .maps(let pages): region.memory.detach(located(pages))
      case .nothing: break
      }
      regions[address]?.use = .nothing
    }
    // All are cut off before one of them ends, and takes its file along.
    for region in own.values { end(region.use) }
  }

  private mutating func end(_ use: Region.Use) {
    switch use {
    case .shares(let run): unshare(run)
    case .maps(let pages): unmap(pages)
    case .nothing: break
    }
  }

  /// The references name nothing any more; pages still mapped elsewhere are set aside.
  private mutating func unshare(_ number: Int) {
    guard var run = runs[number] else { return }
    withTable(of: run.owner) {
      for reference in run.references { $0?.grants[Int(reference)] = .none }
      $0?.sharedPages -= run.references.count
    }
    counted.sharedPages -= run.references.count
    if run.isOrphaned {
      counted.orphanedPages += run.mappedPages
    } else {
      counted.quarantinedPages += run.mappedPages
    }
    run.isShared = false
    runs[number] = run
    forgetIfUnused(number)
  }

  private mutating func unmap(_ pages: [Page]) {
    counted.mappedPages -= pages.count
    for page in pages {
      guard var run = runs[page.run] else { continue }
      run.mappedPages -= 1
      if run.isOrphaned, !run.isShared { counted.orphanedPages -= 1 }
      runs[page.run] = run
      forgetIfUnused(page.run)
    }
  }

  private mutating func forgetIfUnused(_ number: Int) {
    guard let run = runs[number], !run.isShared, run.mappedPages == 0 else { return }
    run.file.close()
    runs[number] = nil
    freeRuns.append(number)
  }

  // MARK: Copying

  /// Whether copies change nothing here, so that several may be under way at once.
  var copiesSideBySide: Bool { faults.failedCopy == .never }

  /// `GNTTABOP_copy`, by a process that is alive, where no fault strikes.
  func copy(_ copies: inout MutableSpan<GrantCopy>, by grantee: DomainID) {
    copyTotal.count.wrappingAdd(copies.count, ordering: .relaxed)
    for index in copies.indices {
      let (status, grant) = find(copies[index], by: grantee)
      if status == .okay { move(copies[index], grant) }
      copies[index].status = status
    }
  }

  /// The same where a fault may strike.
  mutating func copyWithFaults(_ copies: inout MutableSpan<GrantCopy>, by grantee: DomainID) {
    copyTotal.count.wrappingAdd(copies.count, ordering: .relaxed)
    for index in copies.indices {
      var (status, grant) = find(copies[index], by: grantee)
      if status == .okay, faults.failedCopy.strikes(&random) { status = .generalError }
      if status == .okay { move(copies[index], grant) }
      copies[index].status = status
    }
  }

  private func find(_ copy: GrantCopy, by grantee: DomainID) -> (status: GrantStatus, grant: Grant) {
    guard Int(copy.offset) + Int(copy.count) <= xenPageSize else { return (.badCopyArgument, .none) }
    return find(copy.reference, of: copy.domain, for: grantee, writable: copy.direction == .toGrant)
  }

  /// Moves the bytes of a copy that was found to be one.
  private func move(_ copy: GrantCopy, _ grant: Grant) {
    // Safe: the owner has the page mapped while it is granted, and the copy stays within it.
    guard let page = unsafe grant.page else { preconditionFailure("a grant is of a page") }
    let bytes = unsafe page + Int(copy.offset)
    switch copy.direction {
    case .fromGrant: unsafe copy.local.copyMemory(from: bytes, byteCount: Int(copy.count))
    case .toGrant: unsafe bytes.copyMemory(from: copy.local, byteCount: Int(copy.count))
    }
  }
}
