import XenPlatform

/// Every domain's grant table, and who uses which pages behind it.
struct GrantSpace {
  /// What a domain can use of the kernel's pages and references for sharing.
  private struct Table {
    /// References are never given out twice, so that a stale one is noticed; 0 to 7 are Xen's own.
    var nextReference: UInt32 = 8
    var sharedPages = 0
    /// As xen-gntalloc's parameter has it where nobody sets it.
    var sharedPageLimit = 1024
  }

  /// One `share`.
  private struct Run {
    let file: PageFile
    let owner: DomainID
    let references: ClosedRange<UInt32>
    var mappedPages = 0
    var isShared = true
    /// Its process was killed.
    var isOrphaned = false
  }

  private struct Page {
    let run: Int
    let number: Int
  }

  @safe private struct Grant {
    let page: Page
    let grantee: DomainID
    var writable: Bool
    /// Where the owner has the page.
    let address: UnsafeMutableRawPointer
  }

  private struct Key: Hashable {
    let domain: DomainID
    let reference: UInt32
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

  private var tables: [DomainID: Table] = [:]
  private var runs: [Int: Run] = [:]
  private var nextRun = 0
  private var grants: [Key: Grant] = [:]
  /// By address.
  private var regions: [UInt: Region] = [:]
  private var random: SplitMix64
  private(set) var counts = GrantCounts()
  var faults = GrantFaults()

  init(seed: UInt64) { random = SplitMix64(state: seed) }

  // MARK: Domains

  mutating func introduce(_ domain: DomainID) { tables[domain] = Table() }

  /// Its processes have been ended before.
  mutating func destroy(_ domain: DomainID) { tables[domain] = nil }

  func sharedPageLimit(of domain: DomainID) -> Int { tables[domain]?.sharedPageLimit ?? 0 }

  mutating func setSharedPageLimit(of domain: DomainID, to limit: Int) { tables[domain]?.sharedPageLimit = limit }

  // MARK: Sharing and mapping

  mutating func share(
    pageCount: Int, by process: LoopbackProcess, with grantee: DomainID, writable: Bool
  ) throws(GrantError) -> (memory: PageMapping, references: [GrantReference]) {
    guard !process.isKilled, var table = tables[process.domain] else {
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
    let references = table.nextReference...(table.nextReference + UInt32(pageCount) - 1)
    table.nextReference = references.upperBound + 1
    table.sharedPages += pageCount
    tables[process.domain] = table
    runs[nextRun] = Run(file: file, owner: process.domain, references: references)
    for (number, reference) in references.enumerated() {
      grants[Key(domain: process.domain, reference: reference)] = unsafe Grant(
        page: Page(run: nextRun, number: number), grantee: grantee, writable: writable,
        address: memory.baseAddress + number * xenPageSize)
    }
    unsafe regions[UInt(bitPattern: memory.baseAddress)] = Region(
      memory: memory, process: process, use: .shares(run: nextRun))
    nextRun += 1
    counts.sharedPages += pageCount
    return (memory, references.map(GrantReference.init(rawValue:)))
  }

  mutating func setWritable(_ writable: Bool, _ reference: GrantReference, of domain: DomainID) {
    let key = Key(domain: domain, reference: reference.rawValue)
    precondition(grants[key] != nil, "a reference that the domain has granted")
    grants[key]?.writable = writable
  }

  mutating func map(
    _ references: [GrantReference], of domain: DomainID, by process: LoopbackProcess, writable: Bool
  ) throws(GrantError) -> PageMapping {
    precondition(!references.isEmpty, "at least one reference")
    if process.isKilled { throw .system(call: "map", reason: LoopbackProcess.wasKilled) }
    var pages: [Page] = []
    for reference in references {
      switch grant(reference, of: domain, to: process.domain, writable: writable) {
      case .success(let grant): pages.append(grant.page)
      case .failure(let error): throw .refused(reference, of: domain, error.status)
      }
    }
    if faults.failedMap.strikes(&random), let unlucky = references.randomElement(using: &random) {
      throw .refused(unlucky, of: domain, .generalError)
    }
    let memory = try PageMapping(pages.map(located), writable: writable)
    for page in pages { runs[page.run]?.mappedPages += 1 }
    unsafe regions[UInt(bitPattern: memory.baseAddress)] = Region(memory: memory, process: process, use: .maps(pages))
    counts.mappedPages += pages.count
    counts.mapTotal += pages.count
    return memory
  }

  /// What `domain` granted to `grantee` under `reference`, if it did, and for this use. Xen's word for most refusals is
  /// just an error; it tells only of references that lie outside the table, which grows by pages of 512 entries.
  private func grant(
    _ reference: GrantReference, of domain: DomainID, to grantee: DomainID, writable: Bool
  ) -> Result<Grant, GrantStatusError> {
    guard let table = tables[domain] else { return .failure(GrantStatusError(status: .badDomain)) }
    guard reference.rawValue / 512 <= (table.nextReference - 1) / 512 else {
      return .failure(GrantStatusError(status: .badReference))
    }
    guard let grant = grants[Key(domain: domain, reference: reference.rawValue)], grant.grantee == grantee,
      grant.writable || !writable
    else { return .failure(GrantStatusError(status: .generalError)) }
    return .success(grant)
  }

  private struct GrantStatusError: Error { let status: GrantStatus }

  /// A page that is shared, or still mapped: its run is there.
  private func located(_ page: Page) -> PageMapping.Page {
    PageMapping.Page(file: runs[page.run]!.file, number: page.number)
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
        region.memory.detach((0..<region.memory.pageCount).map { located(Page(run: run, number: $0)) })
        runs[run]?.isOrphaned = true
      case .maps(let pages): region.memory.detach(pages.map(located))
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
    for reference in run.references { grants[Key(domain: run.owner, reference: reference)] = nil }
    tables[run.owner]?.sharedPages -= run.references.count
    counts.sharedPages -= run.references.count
    if run.isOrphaned {
      counts.orphanedPages += run.mappedPages
    } else {
      counts.quarantinedPages += run.mappedPages
    }
    run.isShared = false
    runs[number] = run
    forgetIfUnused(number)
  }

  private mutating func unmap(_ pages: [Page]) {
    counts.mappedPages -= pages.count
    for page in pages {
      guard var run = runs[page.run] else { continue }
      run.mappedPages -= 1
      if run.isOrphaned, !run.isShared { counts.orphanedPages -= 1 }
      runs[page.run] = run
      forgetIfUnused(page.run)
    }
  }

  private mutating func forgetIfUnused(_ number: Int) {
    guard let run = runs[number], !run.isShared, run.mappedPages == 0 else { return }
    run.file.close()
    runs[number] = nil
  }

  // MARK: Copying

  /// `GNTTABOP_copy` for one segment, by a process that is alive.
  mutating func copy(_ copy: inout GrantCopy, by grantee: DomainID) {
    counts.copyTotal += 1
    guard Int(copy.offset) + Int(copy.count) <= xenPageSize else {
      copy.status = .badCopyArgument
      return
    }
    switch grant(copy.reference, of: copy.domain, to: grantee, writable: copy.direction == .toGrant) {
    case .failure(let error): copy.status = error.status
    case .success(let grant):
      if faults.failedCopy.strikes(&random) {
        copy.status = .generalError
        return
      }
      // Safe: the owner has the page mapped while it is granted, and the copy stays within it.
      let remote = unsafe grant.address + Int(copy.offset)
      switch copy.direction {
      case .fromGrant: unsafe copy.local.copyMemory(from: remote, byteCount: Int(copy.count))
      case .toGrant: unsafe remote.copyMemory(from: copy.local, byteCount: Int(copy.count))
      }
      copy.status = .okay
    }
  }
}
