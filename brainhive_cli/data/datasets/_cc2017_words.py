"""The words that cc2017's annotations are judged and counted by.

Source: xmed-lab/NEURONS (plain words), as its scripts list them.
"""


def _words(joined: str) -> tuple[str, ...]:
    return tuple(joined.split("|"))


BACKGROUND = _words(
    "None|air|airport|alley|area|arena|avenue|back|background|bale|baseball field|beach|bone|boulevard|"
    "building|center|classroom|cloud|collar|color|column|construction site|coral reef|couch|counter top|"
    "court|courtyard|crowd|darkness|desert|dirt|dock|doorway|drawing|drive|driveway|edge|event|expressway|"
    "fall|field|fire|fireplace|floor|forest|freeway|garage|garden|golf course|ground|gymnasium|hall|highway|"
    "hill|hillside|hut|island|lane|leaf|legging|light|liquid|lobby|market|motion|mountain|mud|night|ocean|"
    "overall|panel|park|parking lot|path|platter|playground|position|precinct|push up|rack|railroad|"
    "railroad track|range|redwood|river|road|roadway|room|route|row|rubble|sailboat|sand|server rack|shack|"
    "shore|sidewalk|sign|sky|skyline|stack|stadium|step|stream|street|student|substance|subway|sun|surface|"
    "swamp|tag|tank|thoroughfare|town|track|trail|trash|tray|tugboat|tunnel|tv|valley|village|wall|water|way|"
    "weed|wood|woods|world|writing|yard"
)
"""Names of masks that are no key object."""
PRIORITY = _words(
    "man|baby|woman|child|bull|panda cub|dog|bear|horse|sheep|cat|chicken|duck|elephant|monkey|penguin|"
    "labrador retriever|panda|bison|chihuahua|antelope|gazelle|dolphin|whale|whale shark|tugboat|tug boat|"
    "deer|lion|buffalo|ant|hammock|butterfly|butterfly fish|stingray|parrot fish|parrotfish|fish|eagle|owl|"
    "turtle"
)
"""Names of persons and animals, one of which is the key object if it moves."""
CONCEPTS = _words(
    "animal|human|vehicle|building|clothing|weapon|plant|appliance|tool|container|body part|furniture|device|"
    "fabric|fruit|vegetable|insect|landscape feature|water body|organism|fish|reptile|mammal|accessory|"
    "sports equipment|food|drink|light source|weather phenomenon|jewelry|musical instrument|structure|"
    "flying vehicle|toy|kitchen item|writing tool|gardening tool|scientific equipment|furniture accessory|"
    "roadway|weaponry accessory|sports field|money|timekeeping device|decoration|art|stationery|"
    "kitchen appliance|rock/mineral|soil/substrate|climate/atmosphere component"
)
"""The 51 labels of a clip, in their order."""
